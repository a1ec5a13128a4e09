"""A run's own times beside the plan's."""

import json
import re

import pytest
from runs import load_config

from permix_jax.core.tpus import GIB, Chip
from permix_jax.planning.comparison import comparison_report, measured, topology_of
from permix_jax.planning.plan import Plan, Use
from permix_jax.planning.prediction import CYCLES, Cost

CHIP = Chip(16.0 * GIB, flops=100.0, hbm_bandwidth=10.0, ici_bandwidth=1.0, links=4, clock=1.0)


@pytest.fixture
def config():
    return load_config("permix.py", "tiny", mesh__data=2, mesh__tensor=2)


def workdir(folder, device="4 x TPU v5 lite", compiles=(9.0, 0.0, 0.0, 0.0)):
    """Of a run of four steps, the first of which compiled."""
    (folder / "config.json").write_text(json.dumps({"device": device}))
    rows = [
        {
            "step": step,
            "time/rollout": 10.0 * step,
            "time/update": 5.0,
            "time/compile": seconds,
            "tokens/generated": 100 * step,
            "perf/mfu": 0.25,
            "perf/peak_memory_gib": 3.5,
        }
        for step, seconds in enumerate(compiles, start=1)
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_slice_is_the_usual_one_of_the_runs_chips(tmp_path, config):
    run = workdir(tmp_path)
    assert topology_of(run, config) == "v5e:2x2"
    assert topology_of(run, config, "v5e:1x4") == "v5e:1x4"
    with pytest.raises(ValueError, match=r"--topology is 'v4:2x2x1', but .* 4 x TPU v5 lite \(v5e"):
        topology_of(run, config, "v4:2x2x1")
    assert topology_of(workdir(tmp_path, "4 x TPU v5p"), config) == "v5p:2x2x1"
    config.mesh.data = 3
    with pytest.raises(ValueError, match="used 6 chips; name their slice by --topology"):
        topology_of(run, config)


@pytest.mark.parametrize("device", ["1 x cpu", "1 x NVIDIA H100 80GB HBM3"])
def test_a_run_on_no_tpu_has_nothing_to_be_compared_with(tmp_path, config, device):
    with pytest.raises(ValueError, match=f"ran on {device}, .* there is nothing to compare its "):
        topology_of(workdir(tmp_path, device), config)


def test_steps_that_compiled_are_left_out(tmp_path):
    found = measured(workdir(tmp_path))
    assert (found.steps, found.rollout, found.update, found.step) == (3, 30.0, 5.0, 35.0)
    assert (found.tokens, found.peak, found.mfu) == (300.0, 3.5, 0.25)
    with pytest.raises(ValueError, match="has 2 steps of GRPO, and none without compiling"):
        measured(workdir(tmp_path, compiles=(9.0, 1.0)))


def test_what_was_measured_stands_beside_what_was_planned(tmp_path, config):
    def use(seconds):
        costs = (Cost("layers", CYCLES, seconds, 0.0),)
        return Use({"parameters": GIB}, 0, GIB, True, 200.0, None, 0.0, costs)

    plan = Plan("v5e:2x2", CHIP, 4, {"rollout": use(20.0), "score": use(4.0), "update": use(6.0)})
    report = comparison_report(plan, config, measured(workdir(tmp_path)))
    assert re.search(r"^rollout, s +2 +20 +30 +1\.50$", report, re.M)
    assert re.search(r"^score and update, s +4 +10 +5 +0\.50$", report, re.M)
    assert re.search(r"^step, s +6 +30 +35 +1\.17$", report, re.M)
    assert re.search(r"^peak, GiB +- +2 +3\.5 +1\.75$", report, re.M)
    # 8 problems x 8 rollouts of 16 tokens at most.
    assert re.search(r"^completion tokens +- +1024 +300 +0\.29$", report, re.M)
    assert "v5e:2x2: 3 steps; scoring and update reach 25.0% of the peak (perf/mfu)" in report

"""Two processes on one mesh: the same run as one process makes on it, stopped and gone on with."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from runs import ROOT, load_config, metrics, own_process, run_tiny, strike

from permix_jax.app.policies import build_policy
from permix_jax.core.distributed import gather, initialize, on_main, own_part, told_by
from permix_jax.core.sharding import make_mesh, to_host
from permix_jax.train.checkpoints import load_params

FIELDS = {
    "mesh.fsdp": 2,
    "sft.steps": 3,
    "train.steps": 3,
    "task.num_test": 4,
    "eval.personas": 2,
    "eval.batch_size": 16,
    "eval.every": 1,
    "train.keep_best": "accuracy_no_persona",
    "train.keep_checkpoints": 1,
    "train.keep_steps": "2",
    "eval.kl_responses": 0,
    "rollout.halvings": 0,
}
CONFIG = [
    f"--config={ROOT / 'configs/permix.py'}:tiny",
    *(f"--config.{field}={value}" for field, value in FIELDS.items()),
]


@pytest.fixture(scope="module")
def one_process(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    return run_tiny(folder / "run", cache=folder / "cache", **FIELDS)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """A run in two processes, one of which got SIGTERM after the second step."""
    folder = tmp_path_factory.mktemp("two")
    program = folder / "program.py"
    program.write_text(strike(3 + 2, "SIGTERM", "--process=1"))
    stopped = subprocess.run(
        [sys.executable, str(ROOT / "launch/local.py"), "--processes=2", str(program)]
        + [*CONFIG, f"--workdir={folder / 'run'}"],
        env=own_process(PERMIX_CACHE=str(folder / "cache"), XLA_FLAGS=""),
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert stopped.returncode == 130, stopped.stderr
    assert stopped.stdout.count("is saved, and the same command goes on") == 1
    return folder / "run"


def test_two_processes_make_the_run_of_one_to_the_last_bit(two, one_process):
    assert metrics(two) == metrics(one_process)[:2]
    for file in ("eval/1/completions.jsonl", "eval/1/stability.json", "completions/2.jsonl"):
        assert (two / file).read_bytes() == (one_process / file).read_bytes()
    best = json.loads((two / "best.json").read_text())["step"]
    there = {path.name for path in (two / "checkpoints").iterdir()}
    assert best in (1, 2) and there == {str(best), "2"}


def test_what_two_processes_saved_is_read_by_one_on_another_mesh(two, one_process):
    mesh = make_mesh(2, 2, 2)
    policy, _ = build_policy(load_config("permix.py", "tiny", **FIELDS), two, mesh)
    mine, theirs = (
        load_params(folder / "checkpoints", policy.model, mesh, 2) for folder in (two, one_process)
    )
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert len(a.sharding.device_set) == 8
        np.testing.assert_array_equal(to_host(a), to_host(b))


def test_a_run_goes_on_with_other_processes_on_another_mesh(two, one_process):
    run_tiny(two, cache=two.parent / "cache", **{**FIELDS, "mesh.data": 2})
    assert (two / "report.html").exists()
    for mine, theirs in zip(metrics(two), metrics(one_process), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-4, abs=1e-6)


def test_alone_a_process_decides_and_works_by_itself():
    assert gather("mine") == ["mine"]
    assert list(range(5))[own_part(5)] == [0, 1, 2, 3, 4]
    assert on_main(lambda: 7) == 7
    with pytest.raises(ValueError, match="as it is"):
        on_main(lambda: int("as it is"))


def test_slurm_and_gke_say_that_there_are_several_processes():
    step = {"SLURM_STEP_NODELIST": "n[1-2]", "SLURM_PROCID": "0", "SLURM_NTASKS": "2"}
    assert told_by(step)
    assert not told_by(step | {"SLURM_NTASKS": "1"})
    assert not told_by({"SLURM_NTASKS": "2"})  # a batch script outside of srun
    assert told_by({"TPU_WORKER_HOSTNAMES": "a,b"})
    assert not told_by({"TPU_WORKER_HOSTNAMES": "localhost"})
    assert not told_by({})


def test_processes_named_in_part_or_out_of_range_are_refused():
    with pytest.raises(ValueError, match="--process: give all three"):
        initialize("localhost:1", 2, None)
    with pytest.raises(ValueError, match="--process is 2; use 0 to 1"):
        initialize("localhost:1", 2, 2)

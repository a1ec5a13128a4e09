"""The tables of a search."""

import re

import pytest
from runs import load_config

from permix_jax.core.tpus import GIB, Chip
from permix_jax.planning.plan import Plan, Use
from permix_jax.planning.prediction import CYCLES, Cost
from permix_jax.planning.search import FIELDS, Candidate, Found
from permix_jax.planning.search_report import limit, ranking, search_report, slices_table

CHIP = Chip(16.0 * GIB, flops=100.0, hbm_bandwidth=10.0, ici_bandwidth=1.0, links=4, clock=1.0)
OWN = dict(zip(FIELDS, (1, 1, 2, 1, 512, "none", 4096), strict=True))


def candidate(seconds=None, size=1.0, chips=2, **fields) -> Candidate:
    """Its rollout takes 3 s at least, by memory, its update 1 s, by matmuls."""

    def use(predicted, **work):
        costs = (Cost("layers", CYCLES, predicted, 0.0),) if predicted else ()
        resident, rest = {"parameters": int(size * GIB)}, {"ici_bytes": 0.0, "costs": costs}
        return Use(resident, 0, 0, True, **{"flops": 0.0, "hbm_bytes": 0.0, **work, **rest})

    rollout, update = use(seconds, hbm_bytes=30.0), use(seconds and 3 * seconds, flops=100.0)
    plan = Plan(f"v5e:1x{chips}", CHIP, chips, {"rollout": rollout, "update": update})
    moved = {name.replace("__", "."): value for name, value in fields.items()}
    return Candidate(OWN | moved, plan, seconds is not None, len(moved))


@pytest.fixture
def found():
    own, best = candidate(4.0), candidate(2.0, mesh__tensor=1, mesh__fsdp=2)
    too_large = candidate(1.0, size=17.5, model__head_chunk=1)
    return Found("v5e:1x2", [best, own, too_large], [candidate(model__remat="full")], 99)


def test_what_limits_a_step_is_its_longest_program_as_predicted_or_by_the_bounds():
    assert limit(candidate()) == "rollout 75%, memory"
    assert limit(candidate(2.0)) == "update 75%, matmuls"


def test_compiled_settings_are_ranked_before_those_with_a_bound_alone(found):
    rows = [re.split(r"  +", line.strip()) for line in ranking(found).splitlines()]
    assert rows[0][:5] == ["predicted, s", "at least, s", "peak, GiB", "fits", "limited by"]
    by_number = {row[0]: row[1:6] for row in rows[1:] if row[0][0].isdigit()}
    assert by_number == {
        "1": ["8", "4", "1.00", "yes", "update 75%, matmuls"],
        "2*": ["16", "4", "1.00", "yes", "update 75%, matmuls"],
        "3": ["4", "4", "17.50", "no: rollout, by 1.50", "update 75%, matmuls"],
        "4": ["-", "4", "1.00", "perhaps", "rollout 75%, memory"],
    }


def test_the_flags_are_those_that_the_config_has_otherwise(found):
    config = load_config("permix.py", "tiny", mesh__tensor=2)
    report = search_report(found, config)
    assert "3 of 99 settings were compiled; the best takes 8 s a step" in report
    assert "2.00 times as fast as the config (16 s)" in report
    assert "\nflags: --config.mesh.fsdp=2 --config.mesh.tensor=1\n" in report
    report = search_report(found._replace(compiled=found.compiled[1:]), config)
    assert "\nthe config as it stands is the best\n" in report


def test_slices_are_ranked_by_chip_seconds(found):
    four = Found("v5e:1x4", [candidate(1.5, chips=4)], [], 9)
    lines = slices_table([four, found], {"v5e:1x1": "nothing fits"}).splitlines()
    numbers = [line.split()[:4] for line in lines if line.startswith("v5e")]
    assert numbers == [["v5e:1x2", "2", "8", "16"], ["v5e:1x4", "4", "6", "24"]]
    assert lines[-1] == "nothing fits"

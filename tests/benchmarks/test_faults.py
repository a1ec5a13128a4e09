"""What a fault campaign draws, compares and says, on runs made by hand."""

import json
import math
import shutil
from dataclasses import dataclass, field

import numpy as np
import pytest
from fault_cases import (
    FLIPPED,
    KILL,
    NO_MEMORY,
    OF_CHECKPOINTS,
    PHASES,
    TRUNCATED,
    Case,
    draw_case,
)
from fault_compare import (
    Place,
    array_differences,
    differences,
    read_arrays,
    row_differences,
)
from fault_player import Player
from fault_runs import half_removed, harm
from faults import CONTROL, Outcome, campaign_table

from permix_jax.train.checkpoints import Checkpoints
from permix_jax.train.log import without_clocks

# ---- cases ---------------------------------------------------------------------------------------


def test_a_case_is_a_function_of_the_seed_and_its_number():
    drawn = [draw_case(3, number) for number in range(20)]
    assert drawn == [draw_case(3, number) for number in range(20)]
    assert [case.number for case in drawn] == list(range(20))
    other = [draw_case(4, number) for number in range(20)]
    # The kinds and phases come in turn, whatever the seed; the instants are drawn.
    assert [(c.kind, c.phase) for c in drawn] == [(c.kind, c.phase) for c in other]
    assert len({c.instant for c in (*drawn, *other)}) == 40


def test_every_kind_and_phase_occurs():
    cases = [draw_case(0, number) for number in range(55)]
    assert len({case.row for case in cases[:11]}) == 11
    for kind in {case.kind for case in cases} - set(OF_CHECKPOINTS):
        assert {case.phase for case in cases if case.kind == kind} == set(PHASES)
    for kind in OF_CHECKPOINTS:
        # GRPO's checkpoint, killed in GRPO and after it; SFT's, unfinished and finished.
        places = {(case.phase, case.of_sft) for case in cases if case.kind == kind}
        assert len(places) == 4
    assert 5 < sum(case.again is not None for case in cases) < 35


# ---- comparison ----------------------------------------------------------------------------------


def test_equal_rows_are_equal_but_for_clocks():
    mine = [{"step": 1, "loss": 0.1, "kl": math.nan, "time/rollout": 3.0, "tokens_per_second": 9.0}]
    theirs = [{"step": 1, "loss": 0.1, "kl": math.nan, "time/rollout": 4.0, "time/update": 1.0}]
    assert row_differences(without_clocks(mine), without_clocks(theirs)) == []


def test_another_value_is_named_with_its_step():
    wanted = [{"step": 1, "loss": 0.5, "kl": 0.0}, {"step": 2, "loss": 0.25, "kl": 0.0}]
    changed = [wanted[0], {"step": 2, "loss": 0.2500000001, "kl": 0.0}]
    line = "step 2: loss is 0.2500000001 in place of 0.25"
    assert row_differences(changed, wanted) == [line]
    assert row_differences([wanted[0], {"step": 2, "loss": 0.25}], wanted) == [
        "step 2: kl is absent in place of 0.0"
    ]
    assert row_differences(wanted[:1], wanted) == ["1 rows in place of 2"]


def test_arrays_are_compared_bit_for_bit():
    wanted = {"a": np.array([0.0, math.nan], np.float32), "b": np.arange(3)}
    assert array_differences({k: v.copy() for k, v in wanted.items()}, wanted) == []
    # Equal as numbers, not as bits.
    assert array_differences(wanted | {"a": np.array([-0.0, math.nan], np.float32)}, wanted) == [
        "a differs"
    ]
    assert array_differences(wanted | {"b": np.arange(3.0)}, wanted) == [
        "b is float64[3] in place of int64[3]"
    ]
    assert array_differences({"a": wanted["a"], "c": wanted["b"]}, wanted) == [
        "b is missing",
        "c is one leaf too many",
    ]


def write_metrics(part, number: int) -> None:
    part.mkdir(parents=True)
    rows = [{"step": step, "loss": 1 / step, "time/update": 0.1} for step in range(1, number + 1)]
    (part / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 4 steps of SFT and 2 of GRPO, as files."""
    place = Place(tmp_path_factory.mktemp("whole") / "place")
    base = place.cache / "bases/abc"
    for part, last in ((base, 4), (place.workdir, 2)):
        write_metrics(part, last)
        checkpoints = Checkpoints(part / "checkpoints")
        for step in (last - 1, last):
            params = {"layer": {"gate": np.full((2, 3), step, np.float32)}}
            checkpoints.save(step, params, {"step": np.int32(step), "opt_state": [params]})
        checkpoints.close()
    files = {
        "completions/2.jsonl": "{}\n",
        "eval/0/completions.jsonl": "1\n2\n3\n",
        "eval/0/stability.json": "{}",
        "report.html": "seconds: 1",
        "report.json": "{}",
        "report.md": "",
        "config.json": json.dumps({"config": {"seed": 0}, "base": str(base)}),
    }
    for name, text in files.items():
        (place.workdir / name).parent.mkdir(parents=True, exist_ok=True)
        (place.workdir / name).write_text(text)
    return place


@pytest.fixture
def other(whole, tmp_path):
    """The same again, elsewhere."""
    place = Place(tmp_path / "other")
    shutil.copytree(whole.folder, place.folder)
    config = {"config": {"seed": 0}, "base": str(place.parts["SFT"])}
    (place.workdir / "config.json").write_text(json.dumps(config))
    return place


def test_runs_that_are_equal_have_no_differences(whole, other):
    assert differences(whole, other) == []


def test_one_changed_metric_is_named(whole, other):
    path = other.parts["SFT"] / "metrics.jsonl"
    path.write_text(path.read_text().replace('"loss": 0.25', '"loss": 0.26'))
    assert differences(whole, other) == ["SFT metrics, step 4: loss is 0.26 in place of 0.25"]


def test_one_changed_leaf_is_named(whole, other):
    folder = other.workdir / "checkpoints"
    arrays = read_arrays(folder / "2")
    assert set(arrays) == {
        "params/layer/gate",
        "optimizer/step",
        "optimizer/opt_state/0/layer/gate",
    }
    shutil.rmtree(folder / "2")
    moment = arrays["optimizer/opt_state/0/layer/gate"].copy()
    moment[1, 2] = np.nextafter(moment[1, 2], np.float32(9))
    checkpoints = Checkpoints(folder)
    state = {"step": np.int32(2), "opt_state": [{"layer": {"gate": moment}}]}
    checkpoints.save(2, {"layer": {"gate": arrays["params/layer/gate"]}}, state)
    checkpoints.close()
    assert differences(whole, other) == [
        "GRPO checkpoint 2, optimizer/opt_state/0/layer/gate differs"
    ]


def test_changed_missing_and_spare_files_are_named(whole, other):
    (other.workdir / "eval/0/completions.jsonl").write_text("1\n2\n4\n")
    (other.workdir / "eval/0/stability.json").unlink()
    (other.workdir / "completions/1.jsonl").write_text("{}\n")
    (other.workdir / "report.html").unlink()
    shutil.rmtree(other.workdir / "checkpoints/2")
    assert differences(whole, other) == [
        "GRPO: the checkpoints are [1], the last must be 2",
        "completions/1.jsonl is one file too many",
        "eval/0/completions.jsonl, line 3 differs",
        "eval/0/stability.json is missing",
        "report.html is missing",
    ]


# ---- faults --------------------------------------------------------------------------------------


def case_of(kind: str, phase: str = "GRPO", of_sft: bool = False) -> Case:
    return Case(7, kind, phase, 0.5, 1, of_sft, None, 11)


def files_of(place: Place) -> dict[str, bytes]:
    paths = [path for path in place.folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(place.folder)): path.read_bytes() for path in paths}


@pytest.mark.parametrize("of_sft", [False, True])
def test_one_bit_of_the_newest_checkpoint_is_flipped(whole, other, of_sft):
    checkpoint, _ = harm(case_of(FLIPPED, of_sft=of_sft), other)
    assert (
        checkpoint == other.parts["SFT" if of_sft else "GRPO"] / f"checkpoints/{4 if of_sft else 2}"
    )
    mine, theirs = files_of(other), files_of(whole)
    mine.pop("run/config.json"), theirs.pop("run/config.json")
    [name] = [name for name in theirs if mine[name] != theirs[name]]
    assert str(other.folder / name).startswith(str(checkpoint))
    pairs = zip(mine[name], theirs[name], strict=True)
    assert sum((a ^ b).bit_count() for a, b in pairs) == 1


def test_one_file_of_the_newest_checkpoint_is_truncated(whole, other):
    checkpoint, _ = harm(case_of(TRUNCATED), other)
    mine, theirs = files_of(other), files_of(whole)
    mine.pop("run/config.json"), theirs.pop("run/config.json")
    [name] = [name for name in theirs if mine[name] != theirs[name]]
    assert str(other.folder / name).startswith(str(checkpoint))
    assert theirs[name].startswith(mine[name])


# ---- what is noticed on the way ------------------------------------------------------------------


@dataclass
class Ended:
    """A run that has said something, as the player sees it."""

    words: str = ""
    status: int = 0
    process: object = field(default=None)


def player_at(place: Place, kind: str = KILL) -> Player:
    player = Player(case_of(kind), place, None, {"whole": 1.0})
    player._ended(Ended(), -9, "kill -9")
    assert player.found == []
    return player


def test_rows_of_saved_steps_must_survive_with_their_clocks(other):
    path = other.workdir / "metrics.jsonl"
    rows = path.read_text()
    path.write_text(rows + '{"step": 3}\n')
    player = player_at(other)
    path.write_text(rows)  # what lies beyond the newest checkpoint may go
    player._ended(Ended(), 0, "")
    assert player.found == []
    path.write_text(rows.replace('"time/update": 0.1', '"time/update": 0.2'))  # made again
    player._ended(Ended(), 0, "")
    assert player.found == [f"start 0: rows of saved steps are gone from {path}"]


def test_a_stop_must_have_saved_its_last_step(other):
    player = player_at(other)
    player._ended(Ended("stopped; what was done is saved, and"), 0, "SIGTERM")
    assert player.found == []
    shutil.rmtree(other.workdir / "checkpoints/2")
    player._ended(Ended("stopped; what was done is saved, and"), 0, "SIGTERM")
    assert player.found == ["stopped after step 2 of GRPO, saved are [1]"]


def test_a_checkpoint_that_nothing_damaged_must_not_be_set_aside(other):
    player = player_at(other, NO_MEMORY)
    (other.workdir / "checkpoints/2").rename(other.workdir / "checkpoints/corrupt-2")
    player._check_what_was_set_aside()
    [line] = player.found
    assert line.endswith("corrupt-2 was set aside, and nothing had damaged it")


def damaged_at(place: Place) -> tuple[Player, dict]:
    """A player that has harmed GRPO's newest checkpoint, and the state before the next run."""
    player = player_at(place, FLIPPED)
    player._damaged, _ = harm(case_of(FLIPPED), place)
    return player, player._state()


def test_a_run_that_stops_for_damage_touches_nothing_else(other):
    player, before = damaged_at(other)
    folder = other.workdir / "checkpoints"
    words = f"note: x\nerror: {folder}: every checkpoint is damaged\n"
    (folder / "2").rename(folder / "corrupt-2")
    player._stopped_by_damage(Ended(words), before)
    assert player.found == [] and not folder.exists()  # moved away, as the line says


def test_a_checkpoint_whose_removal_was_killed_may_be_set_aside_too(other):
    base = other.parts["SFT"]  # keeps one checkpoint, and has 3 and 4
    assert half_removed(base / "checkpoints/4") == [base / "checkpoints/3"]
    assert half_removed(other.workdir / "checkpoints/2") == []  # GRPO keeps three
    player = player_at(other, FLIPPED)
    player._damaged, player._removing = base / "checkpoints/4", [base / "checkpoints/3"]
    assert player._what_is_saved().keys() == {other.workdir / "metrics.jsonl"}
    before = player._state()
    for step in (3, 4):
        (base / f"checkpoints/{step}").rename(base / f"checkpoints/corrupt-{step}")
    player._check_what_was_set_aside()
    player._stopped_by_damage(Ended(f"error: {base}/checkpoints: every"), before)
    assert player.found == []


def test_a_run_that_stops_for_damage_must_name_it_and_keep_its_metrics(other):
    player, before = damaged_at(other)
    player._stopped_by_damage(Ended("Traceback ...\nValueError: no"), before)
    assert player.found == ["start 0: ValueError: no"]
    player.found.clear()
    (other.workdir / "metrics.jsonl").write_text("")
    player._stopped_by_damage(Ended(f"error: {other.workdir}/checkpoints/2: damaged"), before)
    assert player.found == ["start 0: it stopped, but checkpoints or rows changed"]


# ---- the table -----------------------------------------------------------------------------------


def test_the_table_counts_by_kind_and_names_the_first_difference():
    outcomes = [
        Outcome(CONTROL, "the second run", 0, 0, []),
        Outcome("SIGTERM", "case 1", 1, 1, []),
        Outcome("SIGTERM", "case 12", 2, 2, ["eval/6/kl.json is missing", "more"]),
    ]
    _, _, *lines = campaign_table(outcomes).splitlines()
    assert [" ".join(line.split()) for line in lines] == [
        "SIGTERM 2 3 3 1 differ; case 12: eval/6/kl.json is missing",
        "no fault 1 0 0 nothing differs",
        "all 3 3 3 1 differ; case 12: eval/6/kl.json is missing",
    ]

import json
import subprocess
import sys
from pathlib import Path

import pytest
from synthetic_run import write_run

from permix_jax.report.comparison_page import compare

LAUNCH = Path(__file__).parents[2] / "launch" / "compare.py"


def write_with_pss(workdir: Path, pss: float, **kwargs) -> Path:
    """A run whose trained policy has exactly this PSS."""
    write_run(workdir, steps=3, **kwargs)
    path = workdir / "eval" / "3" / "stability.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"pss": pss}))
    path.with_name("completions.jsonl").unlink()  # which say nothing of this PSS
    return workdir


def cells(table: str, name: str) -> list[str]:
    """Seeds and measures of a row; the cells are two spaces apart or more."""
    line = next(line for line in table.splitlines() if line.startswith(f"{name}  "))
    return line.removeprefix(name).replace(" ±", "±").split()


@pytest.fixture
def runs(tmp_path) -> list[Path]:
    scores = {"permix": (0.95, 0.97, 0.96), "rlvr": (0.85, 0.89, 0.87)}
    return [
        write_with_pss(tmp_path / f"{name}-{seed}", pss, name=name, seed=seed)
        for name, values in scores.items()
        for seed, pss in enumerate(values)
    ]


def test_rows_by_hand(runs):
    table = compare(runs)
    # Sample deviations 0.01, 0.02 and 0.01; the half-width is 4.302653 / sqrt(3) of each.
    assert cells(table, "permix")[:2] == ["3", "0.960±0.025"]
    assert cells(table, "rlvr")[:2] == ["3", "0.870±0.050"]
    assert cells(table, "permix - rlvr")[:2] == ["3", "+0.090±0.025"]
    assert max(map(len, table.splitlines())) <= 132


def test_relative_differences_are_paired_by_seed_and_the_papers_stand_below(runs):
    lines = compare(runs).splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("permix - rlvr"))
    # 0.95/0.85, 0.97/0.89, 0.96/0.87 less 1: 11.765, 8.989, 10.345 %.
    assert lines[at + 1].split()[:5] == ["relative", "3", "+10.4", "±3.4", "%"]
    assert lines[at + 2].split() == ["the", "paper", "+21.2", "%", "+11.4", "%"]


def test_variants_are_paired_with_the_same_variant(tmp_path):
    write = lambda name: write_with_pss(tmp_path / name, 0.9, name=name)  # noqa: E731
    table = compare([write(name) for name in ("permix kl 0.2", "rlvr kl 0.2", "rlvr kl 0.0")])
    pairs = [line.partition("  ")[0] for line in table.splitlines() if " - rlvr" in line]
    assert pairs == ["permix kl 0.2 - rlvr kl 0.2"]


def test_base_comes_first_and_counts_a_seed_once(runs):
    table = compare(runs)
    assert table.splitlines()[2].startswith("base ")
    assert cells(table, "base")[0] == "3"


def test_one_seed_has_no_interval(runs):
    table = compare([runs[0], runs[3]])
    assert table.splitlines()[3].split()[:5] == ["permix", "1", "0.950", "±", "-"]
    assert "permix - rlvr" in table


def test_no_difference_without_a_common_seed(runs):
    assert "permix - rlvr" not in compare([runs[0], runs[4]])


def test_a_measure_that_a_run_lacks_is_a_dash(tmp_path):
    table = compare([write_run(tmp_path, name="sft", with_fidelity=False)])
    assert cells(table, "sft")[-3:] == ["-", "-", "-"]


def test_presets_stand_apart(tmp_path, runs):
    other = write_with_pss(tmp_path / "other", 0.5, preset="tiny")
    table = compare([*runs, other])
    assert cells(table, "permix")[0] == "3"
    assert cells(table, "permix:tiny")[0] == "1" and cells(table, "base:tiny")[0] == "1"


def test_says_when_runs_of_a_method_differ(runs):
    assert "note" not in compare(runs)
    path = runs[1] / "config.json"
    record = json.loads(path.read_text())
    record["config"]["grpo"]["kl_weight"] = 0.2
    path.write_text(json.dumps(record))
    assert "note: the runs of permix differ in grpo.kl_weight" in compare(runs)


def test_refuses_the_same_seed_twice(tmp_path, runs):
    with pytest.raises(ValueError, match="both are permix with seed 0; leave one out"):
        compare([*runs, write_with_pss(tmp_path / "again", 0.9)])


@pytest.mark.parametrize("last", [0, 2])
def test_refuses_a_run_that_did_not_end(tmp_path, runs, last):
    (runs[0] / "eval" / "3").rename(tmp_path / "gone")
    if last:
        (runs[0] / "eval" / "0").rename(runs[0] / "eval" / str(last))
    with pytest.raises(ValueError, match=f"last evaluation is of step {last}, train.steps is 3"):
        compare(runs)


def test_command(tmp_path, runs):
    def launch(*arguments):
        return subprocess.run(
            [sys.executable, LAUNCH, *arguments], capture_output=True, text=True, check=False
        )

    good, bad = launch(*runs), launch(runs[0], tmp_path / "nowhere")
    assert (
        good.returncode == 0
        and good.stdout.startswith(compare(runs))
        and "--out=DIR" in good.stdout
    )
    assert bad.returncode == 1 and bad.stdout == ""
    assert bad.stderr.count("\n") == 1 and "nowhere: no evaluation" in bad.stderr

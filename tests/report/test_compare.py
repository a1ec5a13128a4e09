import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from commands import executed
from synthetic_run import change, write_run

from permix_jax.report.compare import by_competence, competence_table
from permix_jax.report.comparison_page import compare
from permix_jax.report.run_figures import read_run


def write_with_pss(workdir: Path, pss: float, **kwargs) -> Path:
    """A run whose trained policy has exactly this PSS."""
    write_run(workdir, steps=3, **kwargs)
    change(workdir / "eval/3/stability.json", pss=pss)
    (workdir / "eval/3/completions.jsonl").unlink()  # which say nothing of this PSS
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
    lines = table.splitlines()
    # Sample deviations 0.01, 0.02 and 0.01; the half-width is 4.302653 / sqrt(3) of each.
    assert cells(table, "permix")[:2] == ["3", "0.960±0.025"]
    assert cells(table, "rlvr")[:2] == ["3", "0.870±0.050"]
    assert cells(table, "permix - rlvr")[:2] == ["3", "+0.090±0.025"]
    # The base comes first, once a seed.
    assert lines[2].startswith("base ") and cells(table, "base")[0] == "3"
    # Relative differences are paired by seed: 0.95/0.85, 0.97/0.89, 0.96/0.87 less 1, which are
    # 11.765, 8.989, 10.345 %; the paper's stand below.
    at = next(i for i, line in enumerate(lines) if line.startswith("permix - rlvr"))
    assert lines[at + 1].split()[:5] == ["relative", "3", "+10.4", "±3.4", "%"]
    assert lines[at + 2].split() == ["the", "paper", "+21.2", "%", "+11.4", "%"]
    assert max(map(len, lines)) <= 132


def test_variants_are_paired_with_the_same_variant(tmp_path):
    names = ("permix kl 0.2", "rlvr kl 0.2", "rlvr kl 0.0")
    table = compare([write_with_pss(tmp_path / name, 0.9, name=name) for name in names])
    first = table.partition("\n\n")[0]
    pairs = [line.partition("  ")[0] for line in first.splitlines() if " - rlvr" in line]
    assert pairs == ["permix kl 0.2 - rlvr kl 0.2"]


def test_one_seed_has_no_interval_and_two_without_a_common_seed_no_difference(runs):
    table = compare([runs[0], runs[3]])
    assert table.splitlines()[3].split()[:5] == ["permix", "1", "0.950", "±", "-"]
    assert "permix - rlvr" in table
    assert "permix - rlvr" not in compare([runs[0], runs[4]])


def test_a_measure_that_a_run_lacks_is_a_dash(tmp_path):
    table = compare([write_run(tmp_path, name="sft", with_fidelity=False)])
    assert cells(table, "sft")[-3:] == ["-", "-", "-"]


def test_presets_stand_apart(tmp_path, runs):
    other = write_with_pss(tmp_path / "other", 0.5, preset="tiny")
    table = compare([*runs, other])
    numbers = [cells(table, name)[0] for name in ("permix", "permix:tiny", "base:tiny")]
    assert numbers == ["3", "1", "1"]


def test_says_when_runs_of_a_method_differ(runs):
    assert "note" not in compare(runs)
    path = runs[1] / "config.json"
    path.write_text(path.read_text().replace('"kl_weight": 0.05', '"kl_weight": 0.2'))
    assert "note: the runs of permix differ in grpo.kl_weight" in compare(runs)


def test_a_variant_of_a_method_is_named_by_the_fields_that_differ(tmp_path, runs):
    for number, (weight, pss) in enumerate([(0.2, 0.5), (0.2, 0.6), (0.01, 0.7)]):
        folder = write_with_pss(tmp_path / str(number), pss, seed=number % 2)
        path = folder / "config.json"
        path.write_text(path.read_text().replace('"kl_weight": 0.05', f'"kl_weight": {weight}'))
    table = compare([*runs, *(tmp_path / name for name in "012")])
    for name, seeds, pss in (
        ("permix", "3", None),
        ("permix grpo.kl_weight=0.2", "2", "0.550"),
        ("permix grpo.kl_weight=0.01", "1", "0.700"),
    ):
        shown = cells(table, name)
        assert shown[0] == seeds and (pss is None or shown[1].startswith(pss)), table


def test_refuses_the_same_seed_twice(tmp_path, runs):
    again = write_with_pss(tmp_path / "again", 0.9)
    said = f"^{runs[0]} and {again}: both are permix with seed 0; leave one out"
    with pytest.raises(ValueError, match=said):
        compare([*runs, again])


@pytest.mark.parametrize("last", [0, 2])
def test_refuses_a_run_that_did_not_end(tmp_path, runs, last):
    (runs[0] / "eval" / "3").rename(tmp_path / "gone")
    if last:
        (runs[0] / "eval" / "0").rename(runs[0] / "eval" / str(last))
    with pytest.raises(ValueError, match=f"last evaluation is of step {last}, train.steps is 3"):
        compare(runs)


def test_command(tmp_path, runs):
    command = f"launch/compare.py {shlex.join(map(str, runs))}"
    said = executed(command)
    assert said.startswith(compare(runs)) and "--out=DIR" in said
    with pytest.raises(SystemExit) as failed:
        executed(f"launch/compare.py {runs[0]} {tmp_path / 'nowhere'}")
    assert "\n" not in str(failed.value) and "nowhere: no evaluation" in str(failed.value)


# ---- how fidelity moves by the base's accuracy ---------------------------------------------------


def test_weaker_and_stronger_personas_by_hand():
    accuracy = np.array([0.9, 0.1, 0.5, 0.3, 0.7])
    # Deviations .4 -.4 0 -.2 .2 and .26 -.34 .06 -.14 .16; of 0.1 and 0.3; of 0.7 and 0.9.
    expected = (0.3 / np.sqrt(0.4 * 0.232), -0.3, 0.15)
    assert by_competence(accuracy, np.array([0.2, -0.4, 0.0, -0.2, 0.1])) == pytest.approx(expected)
    assert np.isnan(by_competence(accuracy, np.zeros(5))[0])


def test_a_row_for_each_method_and_kind_of_prompt(tmp_path):
    workdirs = [
        write_run(tmp_path / f"{name}-{seed}", name, seed=seed)
        for name in ("permix", "rlvr")
        for seed in (0, 1)
    ]
    table = competence_table([read_run(workdir) for workdir in workdirs])
    rows = [line.split() for line in table.splitlines()[2:6]]
    tasks = ["role-play", "arithmetic"]
    assert [row[:3] for row in rows] == [[m, t, "2"] for m in ("permix", "rlvr") for t in tasks]

    def weaker(workdir, step):
        """Of skills 0.4, 0.5, 0.7 and 0.85, those of pirate and poet are the weaker two."""
        fidelity = json.loads((workdir / f"eval/{step}/fidelity.json").read_text())
        entries = fidelity["by_task"]["role_play"]["per_persona"]
        return np.mean([e["fidelity"] for e in entries if e["persona"] in ("pirate", "poet")])

    change = np.mean([weaker(workdir, 60) - weaker(workdir, 0) for workdir in workdirs[:2]])
    assert float(rows[0][5]) == pytest.approx(change, abs=5e-4)


def test_runs_without_fidelity_have_no_such_table(tmp_path):
    run = read_run(write_run(tmp_path / "run", with_fidelity=False))
    with pytest.raises(ValueError, match="run: no fidelity by persona .* of the embedded world"):
        competence_table([run])

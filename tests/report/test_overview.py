import json
from types import SimpleNamespace

import numpy as np
import pytest
from synthetic_run import write_run

from permix_jax.core.persona import Persona
from permix_jax.evaluation.results import read_evaluation
from permix_jax.report.overview import (
    judge_free_table,
    overview,
    stability_table,
    summary_table,
    tasks_of,
)
from permix_jax.report.tables import as_text
from permix_jax.stats.summary import summarise

PEOPLE = [
    Persona(f"p|{i}", f"p{i}", "you are", "any", "heldout" if i < 6 else "harmful")
    for i in range(9)
]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    answer = {"task": "problems", "in_style": None}
    rows = [answer | {"correct": float(x)} for x in rng.random(10 * 30) < 0.6]
    counts = {"seed": 0, "samples": 1, "role_play_samples": 0, "resamples": 50}
    settings = SimpleNamespace(**counts, pss="min_over_max")
    for name, result in summarise(rows, PEOPLE, settings).items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    return tmp_path


def test_table_has_a_row_for_each_set_and_for_all(folder):
    table = overview(read_evaluation(folder))
    lines = table.splitlines()
    assert lines[0] == "Stability"
    sets = [line.split()[:2] for line in lines[3:6]]
    assert sets == [["heldout", "6"], ["harmful", "3"], ["together", "9"]]
    stability = json.loads((folder / "stability.json").read_text())
    assert f"{stability['by_set']['heldout']['pss']:.3f} [" in lines[3]
    assert "k = 8" in table and "k = 9" in table and "k = 16" not in table
    assert "Fidelity" not in table


def test_five_personas_that_hurt_most_are_listed(folder):
    effects = json.loads((folder / "stability.json").read_text())["persona_effects"]
    table = overview(read_evaluation(folder))
    for entry in effects[:5]:
        assert f"{entry['effect']:+.3f} [" in table
    listed = table[table.index("Personas that hurt most") :].splitlines()[3:]
    assert [line.split()[0] for line in listed] == [entry["persona"] for entry in effects[:5]]


def test_what_has_no_verdict_is_said(folder):
    of = read_evaluation(folder)
    assert "verdict" not in overview(of)
    of.stability.update(unknown_verdicts=4, problems_left_out=1)
    said = "4 answers without a verdict; the problems with one (1) are left out for every persona"
    assert f"\n{said}\n" in overview(of)
    lines = summary_table({"base": (of.stability, None)}).splitlines()
    assert f"base: {said}" in lines and max(map(len, lines)) <= 110
    of.stability.update(problems_left_out=0)
    said = "4 answers without a verdict; every problem has one, so they count as wrong"
    assert said in overview(of)


def test_several_policies_share_a_table(folder):
    of = read_evaluation(folder).stability
    rows = stability_table({"base": of, "trained": of})["rows"]
    assert [row[0] for row in rows] == [
        f"{policy}: {name}"
        for policy in ("base", "trained")
        for name in ("heldout", "harmful", "together")
    ]
    heldout = of["by_set"]["heldout"]
    assert rows[0][2] == {"value": heldout["pss"], "ci95": heldout["pss_ci95"]}


def test_likelihood_columns_without_a_figure_are_left_out():
    found = {"share": 0.5, "share_ci95": [0.4, 0.6], "chance": 0.25}
    measured = {"by_task": {"problems": {"identification": found, "agreement": None}}}
    table = judge_free_table(tasks_of({"base": measured, "trained": measured}))
    assert as_text(table) == (
        ["task", "identified", "chance"],
        [[f"{name}: problems", "0.500 [0.400, 0.600]", "0.250"] for name in ("base", "trained")],
    )


def test_the_table_of_a_run_is_aligned_and_narrow(tmp_path):
    write_run(tmp_path)
    base, trained = (read_evaluation(tmp_path / f"eval/{step}") for step in (0, 60))
    contents = {"base": (base.stability, base.fidelity), "trained": (trained.stability, None)}
    lines = summary_table(contents).splitlines()
    assert max(map(len, lines)) <= 110
    assert len({len(line) for line in lines[:4]}) == 1  # aligned
    assert lines[0].split("  ")[-1].strip() == "arithmetic [95 % CI]"
    assert lines[2].startswith("base ") and f"{base.stability['pss']:.3f} [" in lines[2]
    assert lines[3].startswith("trained ") and lines[3].split()[-2:] == ["-", "-"]


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="stability.json: no such file"):
        read_evaluation(tmp_path)

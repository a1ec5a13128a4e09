import json
from types import SimpleNamespace

import numpy as np
import pytest

from permix_jax.evaluation.overview import write_overview
from permix_jax.evaluation.summary import summarise
from permix_jax.evaluation.tables import markdown_table
from permix_jax.personas.persona import Persona

PEOPLE = [
    Persona(f"p|{i}", f"p{i}", "you are", "any", "heldout" if i < 6 else "harmful")
    for i in range(9)
]


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"task": "problems", "correct": float(x), "in_style": None}
        for x in rng.random(10 * 30) < 0.6
    ]
    settings = SimpleNamespace(
        seed=0, samples=1, role_play_samples=0, resamples=50, pss="min_over_max"
    )
    for name, result in summarise(rows, PEOPLE, settings).items():
        (tmp_path / f"{name}.json").write_text(json.dumps(result))
    return tmp_path


def test_table_and_markdown_have_a_row_for_each_set_and_for_all(folder):
    table = write_overview(folder)
    lines = table.splitlines()
    assert lines[0] == "Stability"
    assert [line.split()[:2] for line in lines[3:6]] == [
        ["heldout", "6"],
        ["harmful", "3"],
        ["together", "9"],
    ]
    stability = json.loads((folder / "stability.json").read_text())
    assert f"{stability['by_set']['heldout']['pss']:.3f} [" in lines[3]
    assert "k = 8" in table and "k = 9" in table and "k = 16" not in table
    assert "Fidelity" not in table
    markdown = (folder / "evaluation.md").read_text()
    assert markdown.startswith("# Evaluation\n\n## Stability\n\n| personas |")
    assert "| harmful | 3 |" in markdown


def test_five_personas_that_hurt_most_are_listed(folder):
    effects = json.loads((folder / "stability.json").read_text())["persona_effects"]
    table = write_overview(folder)
    for entry in effects[:5]:
        assert f"{entry['effect']:+.3f} [" in table
    listed = table[table.index("Personas that hurt most") :].splitlines()[3:]
    assert [line.split()[0] for line in listed] == [entry["persona"] for entry in effects[:5]]


def test_a_folder_without_results_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="stability.json: no such file"):
        write_overview(tmp_path)


def test_bars_in_a_markdown_cell_are_escaped():
    table = markdown_table(("name", "value"), [["a|b", "1"]])
    assert table.splitlines() == ["| name | value |", "| :-- | --: |", "| a\\|b | 1 |"]

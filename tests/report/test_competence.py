"""How fidelity moves by the base's accuracy: by hand, and read from runs."""

import json

import numpy as np
import pytest
from synthetic_run import write_run

from permix_jax.report.compare import by_competence, competence_table
from permix_jax.report.run_figures import read_run


def test_weaker_and_stronger_personas_by_hand():
    accuracy = np.array([0.9, 0.1, 0.5, 0.3, 0.7])
    change = np.array([0.2, -0.4, 0.0, -0.2, 0.1])
    found = by_competence(accuracy, change)
    assert found.weaker == pytest.approx(-0.3)  # of 0.1 and 0.3
    assert found.stronger == pytest.approx(0.15)  # of 0.7 and 0.9
    # Deviations .4 -.4 0 -.2 .2 and .26 -.34 .06 -.14 .16.
    assert found.correlation == pytest.approx(0.3 / np.sqrt(0.4 * 0.232))


def test_a_constant_change_has_no_correlation():
    assert np.isnan(by_competence(np.array([0.2, 0.8]), np.zeros(2)).correlation)


def test_a_row_for_each_method_and_kind_of_prompt(tmp_path):
    runs = [
        read_run(write_run(tmp_path / f"{name}-{seed}", name, seed=seed))
        for name in ("permix", "rlvr")
        for seed in (0, 1)
    ]
    rows = [line.split() for line in competence_table(runs).splitlines()[2:6]]
    tasks = ["role-play", "arithmetic"]
    assert [row[:3] for row in rows] == [[m, t, "2"] for m in ("permix", "rlvr") for t in tasks]

    # Skills 0.4 and 0.5 against 0.7 and 0.85: pirate and poet are the weaker two.
    def fidelity(run, step, persona):
        entries = json.loads((run.workdir / f"eval/{step}/fidelity.json").read_text())
        entries = entries["by_task"]["role_play"]["per_persona"]
        return next(e["fidelity"] for e in entries if e["persona"] == persona)

    weaker = [
        fidelity(run, 60, persona) - fidelity(run, 0, persona)
        for run in runs[:2]
        for persona in ("pirate", "poet")
    ]
    assert float(rows[0][5]) == pytest.approx(np.mean(weaker), abs=5e-4)


def test_runs_without_fidelity_are_refused(tmp_path):
    run = read_run(write_run(tmp_path / "run", with_fidelity=False))
    with pytest.raises(ValueError, match="run: no fidelity by persona .* of the embedded world"):
        competence_table([run])

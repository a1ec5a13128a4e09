"""The machinery of the coverage, not its figures."""

from dataclasses import replace

import numpy as np
import pytest
from headline_coverage import EXPERIMENTS, Interval, Shape, accuracy, coverage, experiment, show

SMALL = Shape({"rlvr": (0.5, 0.3), "permix": (1.0, 0.1)}, personas=3, problems=40, seeds=2)


def test_accuracy_is_the_mean_over_problems():
    shape = replace(SMALL, problem=0.0, problem_persona=0.0, problem_seed=0.0)
    assert accuracy(shape, np.array([0.0, np.log(3)])) == pytest.approx([0.5, 0.75])


def test_simulated_answers_have_the_true_accuracies():
    shape = replace(SMALL, problems=20_000, seeds=1)
    for _, policies in experiment(shape, np.random.default_rng(0)):
        for truth, correct, plain in policies:
            right = [plain.mean(), *correct.mean(axis=(1, 2))]
            assert right == pytest.approx(truth, abs=0.02)


def test_a_row_for_each_interval(capsys):
    alone, over = coverage(SMALL, 2, 50)
    assert {len(of) for of in (*alone.values(), *over.values())} == {2}
    assert "PSS, corrected, rlvr" in alone and "PSS, corrected, difference: true" in over
    show("x", {"half": [Interval(0.5, 0.4, 0.6), Interval(0.5, 0.6, 0.7)]})
    assert capsys.readouterr().out.splitlines()[1].split()[:4] == [
        "half",
        "0.500",
        "±0.354",
        "0.500",
    ]
    assert len(EXPERIMENTS) == 4

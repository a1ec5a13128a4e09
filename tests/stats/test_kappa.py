import numpy as np
import pytest

from permix_jax.stats.kappa import (
    agreement_figures,
    answers,
    fleiss_kappa,
    kappa_by_problem,
    verdicts,
)

NAN = float("nan")
# The textbook example: 10 subjects, 14 raters, 5 categories; how many raters chose each.
TEXTBOOK = (
    (0, 0, 0, 0, 14), (0, 2, 6, 4, 2), (0, 0, 3, 5, 6), (0, 3, 9, 2, 0), (2, 2, 8, 1, 1),
    (7, 7, 0, 0, 0), (3, 2, 6, 3, 0), (2, 5, 3, 2, 2), (6, 5, 2, 1, 0), (0, 2, 2, 3, 7),
)  # fmt: skip


def textbook() -> np.ndarray:
    """[rater, subject, 1]"""
    return np.array([np.repeat(range(5), counts) for counts in TEXTBOOK]).T[..., None]


def test_the_textbook_example():
    figures = fleiss_kappa(textbook())
    assert figures["agreement"] == pytest.approx(0.378, abs=5e-4)
    assert figures["kappa"] == pytest.approx(0.210, abs=5e-4)


def test_names_of_ratings_and_order_of_raters_and_subjects_do_not_matter():
    ratings, rng = textbook(), np.random.default_rng(0)
    other = 7 - 3 * rng.permuted(ratings, axis=0)[:, rng.permutation(10)]
    for name, value in fleiss_kappa(ratings).items():
        assert fleiss_kappa(other)[name] == pytest.approx(value), name


def test_two_samples_by_hand():
    """Problem 0: a, a against a, b: 2 of 4 pairs alike. Problem 1: all b. Shares 3/8 and 5/8."""
    ratings = np.array([[[0, 0], [1, 1]], [[0, 1], [1, 1]]])
    figures = fleiss_kappa(ratings)
    by_chance = (3 / 8) ** 2 + (5 / 8) ** 2
    assert figures["agreement"] == 0.75
    assert figures["kappa"] == pytest.approx((0.75 - by_chance) / (1 - by_chance))


def test_always_alike_and_one_rating_alone():
    alike = fleiss_kappa(np.array([[[0], [1]], [[0], [1]], [[0], [1]]]))
    assert (alike["agreement"], alike["kappa"]) == (1, 1)
    one = fleiss_kappa(np.zeros((2, 3, 1), int))
    assert (one["agreement"], one["kappa"], one["kappa_ci95"]) == (1, None, None)
    # Two personas that never agree: P = 0 and E = 1/2.
    assert fleiss_kappa(np.array([[[0], [1]], [[1], [0]]]))["kappa"] == pytest.approx(-1)


def test_the_interval_is_that_of_the_jackknife():
    """Gwet's variance is the linearised one; the jackknife over problems comes to the same."""
    rng = np.random.default_rng(1)
    ease = rng.normal(size=(1, 300, 1))
    ratings = (rng.normal(size=(6, 300, 1)) < ease).astype(int)
    left_out = [
        [fleiss_kappa(np.delete(ratings, i, axis=1))[name] for name in ("agreement", "kappa")]
        for i in range(300)
    ]
    errors = np.std(left_out, axis=0) * np.sqrt(299)
    figures = fleiss_kappa(ratings)
    for name, error in zip(("agreement", "kappa"), errors, strict=True):
        low, high = figures[f"{name}_ci95"]
        assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.01)


def test_the_interval_of_kappa_covers_the_truth():
    """400 runs: at 0.95 the standard error is 0.011; the bounds are three of them off.

    A problem is easy (right 9 times of 10) or hard (1 of 10), half and half: two personas agree
    with P = .82, E = 1/2.
    """
    rng, covered = np.random.default_rng(2), []
    for _ in range(400):
        rate = np.where(rng.random(80) < 0.5, 0.9, 0.1)[None, :, None]
        low, high = fleiss_kappa((rng.random((5, 80, 1)) < rate).astype(int))["kappa_ci95"]
        covered.append(low <= 0.64 <= high)
    assert 0.917 <= np.mean(covered) <= 0.983


def test_kappa_by_problem_has_its_mean_and_follows_resamples():
    rng = np.random.default_rng(3)
    ratings = (rng.normal(size=(5, 400, 1)) < rng.normal(size=(1, 400, 1))).astype(int)
    by_problem = kappa_by_problem(ratings)
    assert by_problem.mean() == pytest.approx(fleiss_kappa(ratings)["kappa"])
    drawn = rng.integers(0, 400, 400)
    again = fleiss_kappa(ratings[:, drawn])["kappa"]
    assert by_problem[drawn].mean() == pytest.approx(again, abs=0.003)
    assert np.isnan(kappa_by_problem(ratings * 0)).all()


def test_right_answers_are_one_and_wrong_ones_what_they_state():
    correct = np.array([[[1.0, 1.0, 0.0]], [[1.0, 0.0, 0.0]]])
    stated = np.array([[[4, 2, 7]], [[2, -1, 7]]])
    # Right: 4, 2, 2, of which 2 is stated most often. Wrong: 7, 7 and nothing.
    assert answers(correct, stated).tolist() == [[[2, 2, 7]], [[2, -1, 7]]]
    silent = answers(np.array([[[1.0], [0.0]], [[1.0], [0.0]]]), np.full((2, 2, 1), -1))
    assert silent[0, 0] == silent[1, 0] != silent[0, 1] == silent[1, 1]


def test_accuracy_may_be_stable_where_answers_are_not():
    """Both personas are right on half of the problems; on the others they state other answers."""
    correct = np.tile([1.0, 0.0], (2, 10))[..., None]
    stated = np.tile([0, 1], (2, 10))[..., None]
    stated[1] += 2 * (correct[1] == 0).astype(int)
    figures = agreement_figures(correct, stated)
    assert figures["verdict"]["agreement"] == figures["verdict"]["kappa"] == 1
    assert figures["answer"]["agreement"] == 0.5
    assert figures["answer"]["kappa"] == pytest.approx((0.5 - 0.375) / (1 - 0.375))


def test_undecided_problems_are_left_out_and_what_is_not_known_is_none():
    correct = np.array([[[1.0], [NAN], [0.0]], [[1.0], [1.0], [1.0]]])
    decided = fleiss_kappa(verdicts(correct[:, [0, 2]]))
    assert agreement_figures(correct, None) == {"verdict": decided}
    unknown = {"agreement": None, "kappa": None}
    assert agreement_figures(correct[:1], np.zeros((1, 3, 1), int)) == {
        "verdict": unknown,
        "answer": unknown,
    }
    assert agreement_figures(correct * NAN, None) == {"verdict": unknown}
    with pytest.raises(ValueError, match="of one persona: agreement takes two or more"):
        fleiss_kappa(np.zeros((1, 3, 1), int))

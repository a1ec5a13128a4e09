import numpy as np
import pytest
from scipy.spatial.distance import jensenshannon

from permix_jax.stats.style_distance import _pairwise_divergence, style_distance


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def responses(shares, questions: int, samples: int, length: int, seed: int):
    """Token 0 or 1, the latter with the persona's share."""
    generator = rng(seed)
    labels = np.array(
        [(p, q) for p in range(len(shares)) for q in range(questions) for _ in range(samples)]
    )
    tokens = [(generator.random(length) < shares[p]).astype(int) for p, _ in labels]
    return tokens, labels[:, 0], labels[:, 1]


def test_divergence_is_that_of_scipy():
    tokens = [rng(seed).integers(0, 9, 12) for seed in range(5)]
    counts = np.array([np.bincount(row, minlength=9) for row in tokens], float)
    expected = [[jensenshannon(a, b, base=2) ** 2 for b in counts] for a in counts]
    np.testing.assert_allclose(_pairwise_divergence(tokens), expected, atol=1e-12)


def test_by_hand():
    tokens = [[1], [1], [2], [2], [1], [2], [1], [2]]
    persona, question = np.array(list("aabbaabb")), np.array([0, 0, 0, 0, 1, 1, 1, 1])
    result = style_distance(tokens, persona, question, rng(), shuffles=99)
    # Question 0: between 1, within 0. Question 1: between 1/2, within 1.
    assert result["between"] == 0.75 and result["within"] == 0.5
    assert result["distance"] == 0.25 and result["questions"] == 2
    half = 12.7062 * np.std([1, -0.5], ddof=1) / np.sqrt(2)  # t table, one degree
    assert result["distance_ci95"] == pytest.approx([0.25 - half, 0.25 + half], rel=1e-5)


def test_finds_a_style_and_only_where_there_is_one():
    apart = style_distance(*responses((0.1, 0.5, 0.9), 12, 2, 30, 1), rng())
    assert apart["distance_ci95"][0] > 0.1 and apart["p"] == 0.001
    alike = style_distance(*responses((0.5, 0.5, 0.5), 12, 2, 30, 2), rng())
    assert alike["distance"] == pytest.approx(0, abs=0.02) and alike["p"] > 0.01


def test_chance_is_zero_and_covered_however_short_the_responses():
    """300 runs: at 0.95 the standard error is 0.0126; the bounds are three of them off."""
    covered, p_values, distances = [], [], []
    for run in range(300):
        result = style_distance(*responses((0.3,) * 4, 12, 2, 4, run), rng(run), shuffles=99)
        low, high = result["distance_ci95"]
        covered.append(low <= 0 <= high)
        p_values.append(result["p"])
        distances.append(result["distance"])
    assert 0.912 <= np.mean(covered) <= 0.988
    assert np.mean(np.array(p_values) <= 0.1) <= 0.1 + 3 * np.sqrt(0.09 / 300)
    assert abs(np.mean(distances)) <= 3 * np.std(distances) / np.sqrt(300)


def test_questions_of_one_persona_are_left_out():
    tokens, persona, question = responses((0.2, 0.8), 5, 2, 20, 3)
    alone = [*tokens, [1, 1], [0, 1]]
    result = style_distance(alone, np.append(persona, [0, 0]), np.append(question, [9, 9]), rng())
    assert result == style_distance(tokens, persona, question, rng())


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[1], [2]], "sample at least two responses"),
        ([[1], [2], [3]], "have 3, 2 and 2 entries"),
        ([[1], []], "leave out responses without a token"),
    ],
)
def test_refuses(tokens, message):
    with pytest.raises(ValueError, match=message):
        style_distance(tokens, np.array([0, 1]), np.array([0, 0]), rng())

"""How differently personas answer the same question, from the tokens alone."""

from collections.abc import Sequence
from itertools import chain

import numpy as np
from scipy.special import xlogy

from permix_jax.stats.statistics import t_interval


def style_distance(
    tokens: Sequence[Sequence[int]],
    persona: np.ndarray,
    question: np.ndarray,
    rng: np.random.Generator,
    shuffles: int = 999,
) -> dict:
    """How differently the personas answer the same question: `between` minus `within`.

    The distance of two responses is the Jensen-Shannon divergence, in bits (0 to 1), of their token
    distributions (Lin 1991). `between` is its mean over responses of two personas to a
    question, `within` that over two responses of one persona. The root of the divergence is a
    distance in a Hilbert space (Fuglede and Topsoe 2004). So where all personas answered equally
    often, the `distance` is half the energy distance of the styles: in expectation never negative,
    and 0 where the persona makes no difference, however short the responses are. Its `_ci95` is
    Student's t over questions (None for one). Its one-sided `p` comes from shuffling the persona
    labels within questions.

    Args:
      tokens: [R] the token ids of each response, at least one.
      persona, question: [R] labels. Only questions with two personas, one of which answered twice,
        are used; `questions` is their number, and the means are over them.

    Raises:
      ValueError: lengths that differ, a response without a token, or no usable question.
    """
    persona, question = np.unique(persona, return_inverse=True)[1], np.asarray(question)
    if not len(tokens) == len(persona) == len(question) or not all(map(len, tokens)):
        raise ValueError(
            f"tokens, persona and question have {len(tokens)}, {len(persona)} and {len(question)} "
            "entries: give one of each a response, and leave out responses without a token"
        )
    means, shuffled = [], []
    for name in np.unique(question):
        asked = np.flatnonzero(question == name)
        # Shuffling the labels moves the pairs of one persona to other responses.
        first, second = np.nonzero(np.triu(persona[asked][:, None] == persona[asked], k=1))
        pairs = len(asked) * (len(asked) - 1) // 2
        if not 0 < len(first) < pairs:
            continue
        distances = _pairwise_divergence([tokens[i] for i in asked])
        orders = rng.permuted(np.tile(np.arange(len(asked)), (shuffles, 1)), axis=1)
        orders = np.concatenate([np.arange(len(asked))[None], orders])
        within = distances[orders[:, first], orders[:, second]].mean(axis=1)
        total = distances.sum() / 2
        between = (total - within * len(first)) / (pairs - len(first))
        means.append((between[0], within[0]))
        shuffled.append(between[1:] - within[1:])
    if not means:
        raise ValueError(
            "no question was answered by two personas and twice by one of them: "
            "sample at least two responses for each persona and question"
        )
    between, within = np.transpose(means)
    distance, half = t_interval(between - within)
    as_far = np.mean(shuffled, axis=0) >= distance - 1e-12
    return {
        "between": float(between.mean()),
        "within": float(within.mean()),
        "distance": distance,
        "distance_ci95": None if np.isnan(half) else [distance - half, distance + half],
        "chance": 0.0,
        "p": float((1 + as_far.sum()) / (1 + shuffles)),
        "questions": len(means),
    }


def _pairwise_divergence(tokens: Sequence[Sequence[int]]) -> np.ndarray:
    """Jensen-Shannon divergence in bits of all pairs, [n, n]."""
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(chain(*tokens)))}
    counts = np.zeros((len(tokens), len(vocabulary)))
    for row, ids in zip(counts, tokens, strict=True):
        np.add.at(row, [vocabulary[token] for token in ids], 1)
    half = counts / counts.sum(axis=1, keepdims=True) / 2
    terms = -xlogy(half, half)
    totals = terms.sum(axis=1)
    entropy = 2 * totals - np.log(2)  # of the frequencies, in nats
    distances = np.empty((len(tokens), len(tokens)))
    for i, row in enumerate(half):
        held = np.flatnonzero(row)  # elsewhere the mixture is half of the other distribution
        middle = half[:, held] + row[held]
        mixed = totals - terms[:, held].sum(axis=1) - xlogy(middle, middle).sum(axis=1)
        distances[i] = mixed - (entropy + entropy[i]) / 2
    return np.maximum(distances, 0) / np.log(2)

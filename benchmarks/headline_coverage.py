"""Whether the headlines' 95 % intervals hold: python benchmarks/headline_coverage.py [--runs=N]

Simulates experiments of the shape that a comparison has: two methods, 24 personas and none, 200
problems, 5 seeds, one answer to each. It prints how often the intervals of one evaluation and those
of a comparison over seeds hold the truth, with the Monte Carlo error of that share.

The chance of a right answer is logistic in a sum of normal effects: of the method, the seed, the
persona (the same for all seeds), persona and seed, the problem (the same for all that answer it),
problem and persona, problem and seed. Their spreads are such that two policies come out as stable
as those of docs/results.md. The truth is known: accuracies on infinitely many problems follow from
the spreads by integration.

A comparison over seeds has two truths. "true" is the figure on infinitely many problems, averaged
over infinitely many seeds. "as measured" is what 200 problems show on average. They differ where a
figure takes the worst of many, because noise lowers it. "corrected" takes that away
(permix_jax/stats/corrected.py).
"""

import argparse
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
from scipy.special import expit, ndtri

from permix_jax.stats.corrected import corrected_figures
from permix_jax.stats.paired import over_seeds
from permix_jax.stats.stability import (
    PSS,
    accuracy_figures,
    measure,
    pss_min_over_max,
    with_plain_first,
)
from permix_jax.stats.statistics import bootstrap_weights, gather_means

FIGURES = {
    "PSS": "pss",
    "worst minus none": "worst_minus_none",
    "mean accuracy": "accuracy_mean",
}


@dataclass(frozen=True)
class Shape:
    """Of an experiment. The spreads are standard deviations on the logistic scale.

    methods: name -> level without a persona, and the spread of its personas.
    outlier: how far below the others one persona lies.
    """

    methods: Mapping[str, tuple[float, float]]
    personas: int = 24
    problems: int = 200
    seeds: int = 5
    seed: float = 0.15
    persona_seed: float = 0.1
    problem: float = 1.5
    problem_persona: float = 0.5
    problem_seed: float = 0.5
    shared: bool = True
    outlier: float = 0.0


EXPERIMENTS = {
    "rlvr and permix, shared problems": Shape({"rlvr": (0.9, 0.3), "permix": (1.3, 0.12)}),
    "rlvr and permix, each seed its own problems": Shape(
        {"rlvr": (0.9, 0.3), "permix": (1.3, 0.12)}, shared=False
    ),
    "no method is better, all personas alike": Shape(
        {"rlvr": (1.0, 0.0), "permix": (1.0, 0.0)}, persona_seed=0.0
    ),
    "one persona is far below the others": Shape(
        {"rlvr": (0.9, 0.12), "permix": (1.3, 0.12)}, outlier=1.0
    ),
}


class Interval(NamedTuple):
    truth: float
    low: float
    high: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000, help="simulated experiments of each kind")
    parser.add_argument("--resamples", type=int, default=500)
    args = parser.parse_args()
    for name, shape in EXPERIMENTS.items():
        alone, seeds = coverage(shape, args.runs, args.resamples)
        print(f"\n{name}, {args.runs} experiments")
        show("one evaluation", alone)
        show(f"{shape.seeds} seeds", seeds)


def show(what: str, found: Mapping[str, list[Interval]]) -> None:
    """A row for each figure; the error of a share is that of a binomial."""
    print(f"{what:<44}  holds   error  above  below   width   truth")
    for name, intervals in found.items():
        truth, low, high = np.array(intervals).T
        above, below = (low > truth + 1e-9).mean(), (high < truth - 1e-9).mean()
        holds = 1 - above - below
        error = np.sqrt(holds * (1 - holds) / len(truth))
        shares = f"{holds:6.3f}  ±{error:5.3f}  {above:5.3f}  {below:5.3f}"
        print(f"  {name:<42} {shares}  {(high - low).mean():6.3f}  {truth.mean():+6.3f}")


def coverage(shape: Shape, runs: int, resamples: int) -> tuple[dict, dict]:
    """The intervals of one evaluation, and those over seeds, by figure."""
    rng, alone = np.random.default_rng(0), defaultdict(list)
    measured, found = defaultdict(list), defaultdict(list)  # (figure, method or difference) ->
    for _ in range(runs):
        weights = [bootstrap_weights(shape.problems, resamples, rng) for _ in range(shape.seeds)]
        weights = weights[:1] * shape.seeds if shape.shared else weights
        sides = {}
        for method, policies in experiment(shape, rng):
            for name, interval in _of_one(*policies[0], weights[0]).items():
                alone[f"{name}, {method}"].append(interval)
            each = [_drawn(*of[1:], w) for of, w in zip(policies, weights, strict=True)]
            sides[method] = {name: np.transpose([of[name] for of in each]) for name in each[0]}
        theirs, ours = sides.values()
        sides["difference"] = {name: ours[name] - theirs[name] for name in ours}
        for what, drawn in sides.items():
            for name, values in drawn.items():  # [estimate and resamples, seed]
                measured[name, what].append(values[0].mean())
                found[name, what].append(over_seeds(values[0], values[1:], shape.shared)[1])
    truths, over = _truths(shape), {}
    for (name, what), intervals in found.items():
        true = truths[what][name.removesuffix(", corrected")]
        over[f"{name}, {what}: true"] = [Interval(true, *of) for of in intervals]
        if not name.endswith("corrected"):
            mean = float(np.mean(measured[name, what]))
            over[f"{name}, {what}: as measured"] = [Interval(mean, *of) for of in intervals]
    return alone, over


def experiment(shape: Shape, rng: np.random.Generator) -> Iterator[tuple[str, list]]:
    """Each method and its seeds: true accuracies [1 + persona], correct [persona, problem, 1] and
    plain [problem, 1]. Both methods' policies of one seed answer the same problems."""
    sizes = (shape.seeds, 1, shape.problems)
    ease = rng.normal(0, shape.problem, sizes[1:] if shape.shared else sizes)
    ease = np.broadcast_to(ease, sizes)
    of_persona = rng.normal(0, shape.problem_persona, (shape.personas + 1, shape.problems))
    for method in shape.methods:
        level = levels(shape, method, shape.seeds, rng)
        of_seed = rng.normal(0, shape.problem_seed, sizes)
        chance = expit(level[..., None] + ease + of_persona + of_seed)
        right = (rng.random(chance.shape) < chance).astype(float)[..., None]
        truth = accuracy(shape, level)
        yield method, [(truth[s], right[s, 1:], right[s, 0]) for s in range(shape.seeds)]


def levels(shape: Shape, method: str, seeds: int, rng: np.random.Generator) -> np.ndarray:
    """[seed, 1 + persona]: the level of each policy without a persona and under each."""
    level, spread = shape.methods[method]
    # Quantiles of the normal, so that the personas are the same in every experiment.
    personas = spread * ndtri((np.arange(shape.personas) + 0.5) / shape.personas)
    personas[0] -= shape.outlier
    own = rng.normal(0, shape.persona_seed, (seeds, 1 + shape.personas))
    return level + np.append(0, personas) + own + rng.normal(0, shape.seed, (seeds, 1))


def accuracy(shape: Shape, level: np.ndarray) -> np.ndarray:
    """The mean of the logistic function over problems, by Gauss and Hermite; any shape."""
    spread = np.sqrt(shape.problem**2 + shape.problem_persona**2 + shape.problem_seed**2)
    nodes, weights = np.polynomial.hermite_e.hermegauss(40)
    return expit(level[..., None] + spread * nodes) @ weights / weights.sum()


def _truths(shape: Shape) -> dict[str, dict[str, float]]:
    """Method, or "difference" -> figure -> its mean over very many seeds."""
    result = {}
    for method in shape.methods:
        truth = accuracy(shape, levels(shape, method, 20_000, np.random.default_rng(1)))
        figures = accuracy_figures(truth[:, 1:], truth[:, 0], pss_min_over_max)
        result[method] = {name: float(figures[key].mean()) for name, key in FIGURES.items()}
    theirs, ours = result.values()
    return result | {"difference": {name: ours[name] - theirs[name] for name in ours}}


def _of_one(truth, correct, plain, weights: np.ndarray) -> dict[str, Interval]:
    """The intervals of an evaluation, as stability.json has them."""
    found = {}
    for formula in ("min_over_max", "worst_over_plain", "one_minus_cv"):
        truths = accuracy_figures(truth[1:], truth[0], PSS[formula])
        figures = measure(correct, plain, weights, PSS[formula])
        if formula != "min_over_max":
            found[f"PSS as {formula}"] = Interval(float(truths["pss"]), *figures["pss"].interval)
            continue
        corrected = corrected_figures(correct, plain, weights, PSS[formula])
        for name, key in FIGURES.items():
            found[name] = Interval(float(truths[key]), *figures[key].interval)
            if key in corrected:
                interval = corrected[key].interval
                found[f"{name}, corrected"] = Interval(float(truths[key]), *interval)
    return found


def _drawn(correct: np.ndarray, plain: np.ndarray, weights: np.ndarray) -> dict[str, np.ndarray]:
    """Each figure of an evaluation: the estimate, then its resamples."""
    everyone = gather_means(with_plain_first(correct, plain), weights)
    drawn = np.concatenate([everyone.estimate[None], everyone.resampled])
    figures = accuracy_figures(drawn[:, 1:], drawn[:, 0], pss_min_over_max)
    corrected = corrected_figures(correct, plain, weights, pss_min_over_max)
    result = {name: figures[key] for name, key in FIGURES.items()}
    return result | {
        f"{name}, corrected": np.append(corrected[key].value, corrected[key].resampled)
        for name, key in FIGURES.items()
        if key in corrected
    }


if __name__ == "__main__":
    main()

"""How often the 95 % intervals hold the truth: python benchmarks/bootstrap_coverage.py [--runs=N]

Simulates evaluations whose truth is known and prints, for every figure, the share of intervals
that hold it, the shares that lie above and below it, and the mean width. For the stability score
the textbook bootstrap intervals stand beside, to show why they are not used.
"""

import argparse
import os
import warnings
from collections import defaultdict

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import numpy as np
from scipy.stats import bootstrap, multivariate_normal

from permix_jax.stats.identification import agreement, gain_per_token, identification
from permix_jax.stats.paired import Graded, compare_policies, over_seeds
from permix_jax.stats.stability import accuracy_figures, pss_min_over_max, stability
from permix_jax.stats.statistics import bootstrap_weights, percentile_interval, pooled_means

# Name, accuracies of the personas, problems. Plain accuracy is their mean.
WORLDS = (
    ("4 personas, 0.4 to 0.9", (0.4, 0.6, 0.7, 0.9), 150),
    ("8 personas, 0.5 to 0.9", np.linspace(0.5, 0.9, 8), 200),
    ("8 personas, 0.6 to 0.7", np.linspace(0.6, 0.7, 8), 200),
    ("8 personas, all 0.6", np.full(8, 0.6), 200),
    ("8 personas, all 0.95", np.full(8, 0.95), 200),
    ("4 personas, 0.02 to 0.1", (0.02, 0.03, 0.05, 0.1), 100),
    ("2 personas, 0.3 and 0.8", (0.3, 0.8), 30),
    ("89 personas, 0.5 to 0.7", np.linspace(0.5, 0.7, 89), 300),
    ("89 personas, all 0.6", np.full(89, 0.6), 300),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000, help="simulated evaluations a world")
    parser.add_argument("--resamples", type=int, default=500)
    args = parser.parse_args()
    for name, accuracies, problems in WORLDS:
        runs = args.runs if len(accuracies) < 50 else max(1, args.runs // 5)
        show(name, stability_coverage(accuracies, problems, runs, args.resamples))
    for name, ours, theirs, problems in (
        ("0.6 to 0.9 against 0.4 to 0.9", (0.6, 0.7, 0.8, 0.9), (0.4, 0.6, 0.7, 0.9), 200),
        (
            "0.75 to 0.8 against 0.5 to 0.8",
            np.linspace(0.75, 0.8, 8),
            np.linspace(0.5, 0.8, 8),
            300,
        ),
        ("both 0.5 to 0.9", np.linspace(0.5, 0.9, 8), np.linspace(0.5, 0.9, 8), 200),
    ):
        runs = args.runs // 2
        show(f"two policies, {name}", paired_coverage(ours, theirs, problems, runs, args.resamples))
    for shared in (True, False):
        name = f"5 seeds, {'shared' if shared else 'own'} problems"
        show(name, seeds_coverage(shared, args.runs // 2, args.resamples))
    for clusters in (8, 40, 200):
        name = f"judge-free, {clusters} personas"
        show(name, judge_free_coverage(clusters, args.runs // 2, args.resamples))


def show(world: str, intervals: dict[str, list[tuple[float, list[float]]]]) -> None:
    """Prints a row for each figure; intervals holds (truth, [low, high]) of every run."""
    print(f"\n{world}\n{'':<30}  holds  above  below   width")
    for name, runs in intervals.items():
        truth = np.array([t for t, _ in runs])
        low, high = np.array([interval for _, interval in runs]).T
        above, below = (low > truth + 1e-9).mean(), (high < truth - 1e-9).mean()
        width = (high - low).mean()
        print(f"{name:<30} {1 - above - below:6.3f} {above:6.3f} {below:6.3f}  {width:6.3f}")


def answers(rng: np.random.Generator, accuracies: np.ndarray, problems: int) -> np.ndarray:
    """[persona, problem, 1] with exactly these expected accuracies; problems are hard in common."""
    shape = (len(accuracies), problems)
    difficulty = np.where(rng.random(shape) < 0.5, rng.random(problems), rng.random(shape))
    return (difficulty < np.reshape(accuracies, (-1, 1))).astype(float)[..., None]


def graded(rng: np.random.Generator, accuracies: np.ndarray, problems: int) -> Graded:
    everyone = answers(rng, np.append(accuracies, np.mean(accuracies)), problems)
    return Graded(everyone[:-1], everyone[-1])


def truths(accuracies: np.ndarray) -> dict[str, float]:
    return accuracy_figures(
        np.asarray(accuracies, float), np.float64(np.mean(accuracies)), pss_min_over_max
    )


def stability_coverage(accuracies, problems: int, runs: int, resamples: int) -> dict:
    rng, ids, found = np.random.default_rng(0), range(len(accuracies)), defaultdict(list)
    for _ in range(runs):
        correct, plain = graded(rng, accuracies, problems)
        result = stability(correct, ids, plain, rng, resamples)
        for name, truth in truths(accuracies).items():
            found[name].append((float(truth), result[f"{name}_ci95"]))
        for truth, entry in zip(accuracies, result["per_persona"], strict=True):
            found["accuracy of a persona"].append((truth, entry["accuracy_ci95"]))
        if len(accuracies) < 50:
            for method in ("percentile", "basic", "BCa"):
                interval = textbook(correct[..., 0], method, resamples, rng)
                found[f"pss, {method}"].append((float(truths(accuracies)["pss"]), interval))
    return found


def textbook(correct: np.ndarray, method: str, resamples: int, rng) -> list[float]:
    """SciPy's bootstrap over problems, correct [persona, problem]."""

    def pss(drawn: np.ndarray, axis: int = -1) -> np.ndarray:
        return pss_min_over_max(np.moveaxis(correct[:, drawn].mean(axis=-1), 0, -1))

    problems = (np.arange(correct.shape[1]),)
    with np.errstate(all="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # BCa is undefined where resamples never reach the estimate
        result = bootstrap(problems, pss, n_resamples=resamples, method=method, rng=rng)
    return np.nan_to_num(np.clip(result.confidence_interval, 0, 1)).tolist()


def paired_coverage(ours, theirs, problems: int, runs: int, resamples: int) -> dict:
    rng, found = np.random.default_rng(1), defaultdict(list)
    a, b = truths(ours), truths(theirs)
    for _ in range(runs):
        # One draw of difficulties for both: the policies answer the same problems.
        plain = [np.mean(ours), np.mean(theirs)]
        both = answers(rng, np.concatenate([ours, theirs, plain]), problems)
        n = len(ours)
        result = compare_policies(
            Graded(both[:n], both[-2]), Graded(both[n:-2], both[-1]), rng, resamples
        )
        for name, entry in result.items():
            found[f"{name} difference"].append((a[name] - b[name], entry["difference_ci95"]))
        weights = bootstrap_weights(problems, resamples, rng)
        x, y = (pss_min_over_max(pooled_means(g, weights)) for g in (both[:n], both[n:-2]))
        found["pss difference, percentile"].append(
            (a["pss"] - b["pss"], percentile_interval(x - y))
        )
    return found


def seeds_coverage(shared: bool, runs: int, resamples: int) -> dict:
    """Two methods whose accuracies scatter over seeds by 0.03."""
    rng, found, seeds, problems = np.random.default_rng(2), defaultdict(list), 5, 200
    means = np.linspace(0.7, 0.8, 6), np.linspace(0.5, 0.8, 6)
    for _ in range(runs):
        common = rng.random(problems)
        sides = [[], []]
        for _ in range(seeds):
            if not shared:
                common = rng.random(problems)
            for side, mean in zip(sides, means, strict=True):
                accuracy = mean + rng.normal(0, 0.03, mean.shape)
                accuracy = np.append(accuracy, accuracy.mean())[:, None]
                shape = (len(accuracy), problems)
                difficulty = np.where(rng.random(shape) < 0.5, common, rng.random(shape))
                correct = (difficulty < accuracy).astype(float)[..., None]
                side.append(Graded(correct[:-1], correct[-1]))
        draws = [bootstrap_weights(problems, resamples, rng) for _ in range(seeds)]
        if shared:
            draws = draws[:1] * seeds
        truth = float(means[0].mean() - means[1].mean())
        for name in ("accuracy_mean", "accuracy_no_persona"):
            drawn = [[_means(g, w, name) for g, w in zip(s, draws, strict=True)] for s in sides]
            apart = np.subtract(*drawn).T  # [estimate and resamples, seed]
            _, interval = over_seeds(apart[0], apart[1:], shared)
            found[f"{name} difference"].append((truth, interval))
    return found


def _means(graded: Graded, weights: np.ndarray, name: str) -> np.ndarray:
    """The estimate of a figure, then its resamples."""
    weights = np.concatenate([np.ones((1, weights.shape[1])), weights])
    side = graded.plain[None] if name == "accuracy_no_persona" else graded.correct
    return pooled_means(side, weights).mean(axis=-1)


def judge_free_coverage(personas: int, runs: int, resamples: int) -> dict:
    """Ten responses of each persona; some personas are played better than others."""
    rng, found, k = np.random.default_rng(3), defaultdict(list), 4
    # Own score N(1 + u, 1) against the best of three N(0, 1), u N(0, 0.5) by persona.
    draws = rng.normal(1, np.sqrt(1.25), 2_000_000)
    share = (draws[:, None] > rng.normal(size=(len(draws), k - 1))).all(axis=1).mean()
    # Scores of the two classes are 1 apart in units of their spread.
    auc = multivariate_normal(0, 1).cdf(1 / np.sqrt(2))
    for _ in range(runs):
        cluster = np.repeat(np.arange(personas), 10)
        own = 1 + np.repeat(rng.normal(0, 0.5, personas), 10) + rng.normal(size=len(cluster))
        logp = np.concatenate([own[:, None], rng.normal(size=(len(own), k - 1))], axis=1)
        lengths = rng.integers(5, 30, len(own))
        found["identification"].append((share, identification(logp, cluster)["share_ci95"]))
        gain = gain_per_token(logp, np.zeros(len(own)), lengths, cluster)
        found["gain per token"].append((1 / 17, gain["gain_ci95"]))
        found["margin per token"].append((1 / 17, gain["margin_ci95"]))
        in_style = rng.random(len(own)) < 0.6
        score = in_style + rng.normal(size=len(own))
        result = agreement(score, in_style, cluster, rng, resamples)
        found["AUC"].append((auc, result["auc_ci95"]))
    return found


if __name__ == "__main__":
    main()

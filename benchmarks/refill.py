"""Reward over sampled tokens with and without refill: python benchmarks/refill.py --out=refill

In the embedded world, with rollout.refill_rounds = 0 and 2, over several seeds, each run a command
of launch/train.py. The reward of a step is that of its first round, on problems that nobody chose.
A line of the table is a window of sampled tokens, all rounds counted. It has the mean reward of the
steps that began in it, over seeds, and the paired difference, each with its 95 % interval.

Run the command again to continue where it stopped.
"""

import argparse
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from permix_jax.report.tables import text_table
from permix_jax.stats.statistics import t_interval
from permix_jax.train.log import read_rows

ROOT = Path(__file__).parents[1]
ROUNDS = (0, 2)
# Training alone is looked at: evaluations are as small as they can be.
EVALUATION = {"task.num_test": 2, "eval.role_play_samples": 1, "eval.kl_responses": 0}

Run = tuple[np.ndarray, np.ndarray]  # of each step: tokens sampled before it, and its reward


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--windows", type=int, default=10, help="lines of the table")
    parser.add_argument("--tiny", action="store_true", help="the tiny preset: whether it runs")
    parser.add_argument("--out", type=Path, default=Path("refill"), help="folder of the runs")
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="of launch/train.py"
    )
    args = parser.parse_args()
    if args.seeds < 1 or args.windows < 1:
        parser.error("--seeds and --windows are numbers of 1 or more")
    if wrong := [each for each in args.set if "=" not in each]:
        parser.error(f"--set={wrong[0]}: give a field and its value, such as train.steps=50")
    try:
        runs = {
            rounds: [train(args, seed, rounds) for seed in range(args.seeds)] for rounds in ROUNDS
        }
    except subprocess.CalledProcessError as error:
        sys.exit(f"refill.py: {' '.join(map(str, error.cmd))} exited with {error.returncode}")
    print(table(runs, args.windows))


def train(args: argparse.Namespace, seed: int, rounds: int) -> Run:
    """Trains one policy, if that is not done, and reads its metrics."""
    workdir = args.out / f"refill-{rounds}-s{seed}"
    changes = EVALUATION | {"seed": seed, "rollout.refill_rounds": rounds}
    subprocess.run(
        [
            sys.executable,
            ROOT / "launch/train.py",
            f"--config={ROOT / 'configs/permix.py'}{':tiny' if args.tiny else ''}",
            f"--workdir={workdir}",
            *(f"--config.{name}={value}" for name, value in changes.items()),
            *(f"--config.{each}" for each in args.set),
        ],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    return tokens_and_rewards(read_rows(workdir / "metrics.jsonl"))


def tokens_and_rewards(rows: Sequence[Mapping[str, float]]) -> Run:
    """For each row of metrics: the tokens sampled before its step, and its reward."""
    tokens = np.cumsum([0, *(row["tokens/generated"] for row in rows)])
    return tokens[:-1], np.array([row["reward"] for row in rows])


def table(runs: Mapping[int, Sequence[Run]], windows: int) -> str:
    """Up to the tokens before the last step of the shortest run, in windows of equal width."""
    end = min(tokens[-1] for seeds in runs.values() for tokens, _ in seeds)
    edges = np.linspace(0, end, windows + 1)
    means = {
        rounds: np.array([in_windows(run, edges) for run in seeds])
        for rounds, seeds in runs.items()
    }
    before, after = ROUNDS
    lines = []
    for i in range(windows):
        columns = [means[rounds][:, i] for rounds in ROUNDS]
        columns.append(means[after][:, i] - means[before][:, i])
        shown = [interval(column) for column in columns]
        lines.append([f"{edges[i]:,.0f} to {edges[i + 1]:,.0f}", *shown])
    names = [f"{rounds} rounds of refill" for rounds in ROUNDS]
    return text_table(["tokens", *names, "difference"], lines)


def in_windows(run: Run, edges: np.ndarray) -> list[float]:
    """The mean reward of the steps that began in each window; NaN where none did."""
    tokens, rewards = run
    inside = np.digitize(tokens, edges) - 1
    return [
        float(rewards[inside == i].mean()) if (inside == i).any() else float("nan")
        for i in range(len(edges) - 1)
    ]


def interval(values: np.ndarray) -> str:
    """Mean over seeds and its 95 % half-width; "-" where a run has no step in the window."""
    if np.isnan(values).any():
        return "-"
    mean, half = t_interval(values)
    return f"{mean:+.3f}" if np.isnan(half) else f"{mean:+.3f} ±{half:.3f}"


if __name__ == "__main__":
    main()

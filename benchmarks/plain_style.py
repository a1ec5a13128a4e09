"""Does a model speak in a manner of its own where it has no persona?

    python benchmarks/plain_style.py --workdir=runs/permix-smollm2_arithmetic

In the model of docs/method.md a persona is a prior over styles. An answer under the plain prompt is
in a style that some persona has, or in one of the plain prompt's own. This command reads the base's
answers in a run's workdir (eval/0) and scores them under the base: under the plain prompt, and
under some of the personas that the run was asked with. A persona *claims* an answer if its prompt
makes the answer more likely than the plain prompt does. It prints

    claimed   the share of plain answers that one of 1, 2, 4, ... personas claims
    own       the share of a persona's answers that this persona claims
    q         1 - claimed by one of all: the task.plain_style_share of an embedded world that
              speaks like this model

with 95 % intervals over problems. In the embedded world a persona claims a plain answer that is in
one of the eight styles, so there the share claimed is 1 - task.plain_style_share. Scores are kept
in the workdir's plain_style/; the command goes on where it was stopped.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

import jax
import numpy as np

from permix_jax.app.build import asked_personas, build_run
from permix_jax.app.config_of_run import get_config
from permix_jax.app.policies import subject_of_run
from permix_jax.core.persona import Persona
from permix_jax.core.randomness import generator
from permix_jax.core.sharding import make_mesh
from permix_jax.evaluation.likelihood import Reference, Response, log_likelihoods, response_tokens
from permix_jax.evaluation.results import read_jsonl
from permix_jax.report.tables import text_table
from permix_jax.stats.statistics import bootstrap_weights, percentile_interval, pooled_means

RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--workdir", type=Path, required=True, help="of a run with eval/0")
    parser.add_argument("--personas", type=int, default=8, help="how many may claim an answer")
    parser.add_argument("--problems", type=int, default=100, help="how many problems to read")
    args = parser.parse_args()
    try:
        print(measure(args.workdir, args.personas, args.problems))
    except (OSError, ValueError) as error:
        parser.error(str(error))


def measure(workdir: Path, number: int, problems: int) -> str:
    """The table for the first `number` personas and first `problems` problems of an evaluation."""
    config = get_config(str(workdir))
    subject = subject_of_run(config, workdir, 0, None)
    mesh = make_mesh(**config.mesh)
    with jax.set_mesh(mesh):
        run = build_run(subject.config, workdir, mesh, subject.base, testing_only=True)
        personas = asked_personas(subject.config, run.task)[:number]
        plain, own = answers(subject.folder, personas, problems)
        chunk, tokens = config.model.head_chunk, config.train.micro_batch_tokens
        reference = Reference(run.base, config.eval.batch_size, tokens, chunk)
        folder = workdir / "plain_style"
        folder.mkdir(exist_ok=True)
        of_plain = gains(reference, plain, [personas] * len(plain), folder / "plain.jsonl")
        by_id = {persona.id: persona for persona in personas}
        under = [[by_id[row["persona"]]] for row in own]
        of_own = gains(reference, own, under, folder / "own.jsonl")
    return table(of_plain, of_own[:, 0])


def answers(
    folder: Path, personas: Sequence[Persona], problems: int
) -> tuple[list[dict], list[dict]]:
    """The rows of an evaluation's answers to its first problems: without a persona, and one for
    each problem under one of the personas in turn.

    Raises FileNotFoundError, ValueError: the evaluation is missing or has too few.
    """
    rows = [row for row in read_jsonl(folder / "completions.jsonl") if row["task"] == "problems"]
    plain = [row for row in rows if row["persona"] is None][:problems]
    if len(plain) < problems:
        raise ValueError(f"--problems is {problems}; {folder} has {len(plain)} plain answers")
    asked = {row["problem"]: i for i, row in enumerate(plain)}
    turn = {persona.id: i for i, persona in enumerate(personas)}
    own = [row for row in rows if row["problem"] in asked and row["persona"] in turn]
    return plain, [r for r in own if turn[r["persona"]] == asked[r["problem"]] % len(turn)]


def gains(
    reference: Reference,
    rows: Sequence[dict],
    personas: Sequence[Sequence[Persona]],
    path: Path,
) -> np.ndarray:
    """log p(answer | persona, problem) - log p(answer | problem), in nats: [rows, personas]."""
    responses = [Response(row["prompt"], row["completion"], not row["truncated"]) for row in rows]
    tokens = response_tokens(reference.stored.policy, responses)
    if empty := sum(not ids for ids in tokens):
        raise ValueError(f"{empty} of {len(rows)} answers have no token; take a longer answer")
    under = [[*each, None] for each in personas]
    logp = log_likelihoods(reference, responses, tokens, under, path, f"scores of {path.stem}")
    return logp[:, :-1] - logp[:, -1:]


def table(of_plain: np.ndarray, of_own: np.ndarray) -> str:
    """What the gains [problems, personas] of plain answers and [answers] of own ones say."""
    most = of_plain.shape[1]
    counts = [n for n in (2**i for i in range(most.bit_length())) if n < most] + [most]
    rows = [[f"claimed by one of {n}", *share((of_plain[:, :n] > 0).any(axis=1))] for n in counts]
    rows.append(["own", *share(of_own > 0)])
    estimate, low, high = share(~(of_plain > 0).any(axis=1))
    rows.append(["q", estimate, low, high])
    return text_table(["", "share", "from", "to"], rows)


def share(chosen: np.ndarray) -> list[str]:
    """The share of True, and its 95 % interval by the bootstrap over problems."""
    values = chosen.astype(float)[None, :, None]
    weights = bootstrap_weights(len(chosen), RESAMPLES, generator(0, "plain style"))
    resampled = pooled_means(values, weights)[:, 0]
    return [f"{x:.3f}" for x in (chosen.mean(), *percentile_interval(resampled))]


if __name__ == "__main__":
    main()

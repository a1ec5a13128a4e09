"""Role-play rehearsal, an extension of ours: GRPO also learns the frozen base's own role-play.

In a step the base answers `rehearsal.rows` conversation prompts, each under a training persona.
The cross-entropy on the answers, times `rehearsal.weight`, is added to the GRPO loss. No reward
and no new data: it holds the policy to what the base does where nothing is verifiable.
"""

from pathlib import Path

from permix_jax.core.json_lines import read_rows, text_field
from permix_jax.core.keys import key
from permix_jax.core.problem import Problem, Task
from permix_jax.core.randomness import generator
from permix_jax.core.sharding import padded_rows
from permix_jax.models.packing import Ragged
from permix_jax.models.policy import LoadedPolicy
from permix_jax.personas.conversation import CONVERSATION
from permix_jax.personas.mixture import build_mixture
from permix_jax.personas.prompts import fit_budget, render_all
from permix_jax.rollout.generate import generate
from permix_jax.train.programs import batch_shapes, rollout_sampling
from permix_jax.train.run import Run
from permix_jax.train.supervised import SftBatch, sft_batch


class Rehearsal:
    """Makes the rehearsal batch of any step of a run, a pure function of (base, step).

    PerMix and RLVR rehearse under the same personas: those that PerMix trains under.

    Raises FileNotFoundError or ValueError if `rehearsal.prompts` is no JSONL file with prompts, or
    none of them fits the prompt budget.
    """

    def __init__(self, run: Run):
        c, self.run = run.config, run
        self.personas = build_mixture(run.task.personas, c.personas).train
        prompts = rehearsal_prompts(c.rehearsal.prompts, run.task)
        limits = self.personas, c.rollout.max_prompt_tokens
        self.prompts = fit_budget(run.policy.tokenizer, prompts, *limits, "drop")
        self.shapes = batch_shapes(c, c.rehearsal.rows, c.rollout.max_new_tokens)

    def batch(self, base: dict, step: int) -> SftBatch:
        """Answers of the base with parameters `base` to the prompts of `step`, on the host."""
        c, policy, mesh = self.run.config, self.run.base.policy, self.run.mesh
        rng, rows = generator(c.seed, "rehearsal", step), c.rehearsal.rows
        pairs = [
            (self.personas[rng.integers(len(self.personas))], self.prompts[i].prompt)
            for i in rng.integers(len(self.prompts), size=rows)
        ]
        prompts = render_all(policy.tokenizer, pairs)
        (answers,) = generate(
            LoadedPolicy(policy, base, mesh),
            prompts,
            rollout_sampling(c),
            key(c.seed, "rehearsal", step),
            padded_rows(rows, mesh),
            c.rollout.max_prompt_tokens,
        )
        tokens, mask, *_ = answers.completions
        return sft_batch(prompts, Ragged.masked(tokens[:rows], mask[:rows]), self.shapes)


def build_rehearsal(run: Run) -> Rehearsal | None:
    """The rehearsal that the config asks for; None where its weight is 0."""
    return Rehearsal(run) if run.config.rehearsal.weight else None


def rehearsal_prompts(file: str, task: Task) -> list[Problem]:
    """The prompts of the JSONL `file`; without one, the task's role-play, or CONVERSATION."""
    if file:
        if not Path(file).is_file():
            raise FileNotFoundError(
                f"rehearsal.prompts is {file!r}: there is no such file; write one JSON object a "
                "line with a field prompt"
            )
        texts = [text_field(row, "prompt", where) for _, where, row in read_rows(file)]
    elif task.role_play:
        return list(task.role_play)
    else:
        texts = CONVERSATION
    return [Problem(f"rehearsal-{i}", text, "", "rehearsal") for i, text in enumerate(texts)]

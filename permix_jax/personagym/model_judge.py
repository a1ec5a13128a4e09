"""Pretrained models as judges, through the rollout code of training."""

import json
import math
from collections.abc import Callable, Sequence
from functools import partial

import jax

from permix_jax.core.keys import key
from permix_jax.core.persona import Persona
from permix_jax.models.policy import LoadedPolicy
from permix_jax.personagym.judge_prompts import Prompt
from permix_jax.personagym.judges import Judge, JudgeError, LocalJudge, ModelJudge, Reply
from permix_jax.personas.prompts import render_all
from permix_jax.rollout.generate import answers_of, generate, power_of_two
from permix_jax.rollout.sampling import Sampling


def with_models(
    judges: Sequence[Judge | ModelJudge], open_model: Callable[[ModelJudge], LoadedPolicy]
) -> list[Judge | LocalJudge]:
    """The judges, each ModelJudge as a LocalJudge that opens its model when first asked, one at a
    time. One that cannot be opened raises JudgeError.
    """
    held: dict[ModelJudge, LoadedPolicy] = {}

    def reply(judge: ModelJudge, prompts: list[Prompt]) -> list[Reply]:
        if judge not in held:
            held.clear()
            try:
                held[judge] = open_model(judge)
            except (ValueError, OSError, ImportError) as error:
                raise JudgeError(f"judge {judge.name!r}: {error}") from None
        return _replies(judge, held[judge], prompts)

    def local(judge: ModelJudge) -> LocalJudge:
        identity = json.dumps([judge.source, judge.dtype, judge.max_tokens])
        return LocalJudge(judge.name, identity, partial(reply, judge), judge.batch_size)

    return [local(judge) if isinstance(judge, ModelJudge) else judge for judge in judges]


def _replies(judge: ModelJudge, loaded: LoadedPolicy, prompts: list[Prompt]) -> list[Reply]:
    """Greedy replies. A prompt that does not fit the context with `max_tokens` is refused."""
    policy, most = loaded.policy, judge.max_tokens
    ids = render_all(policy.tokenizer, [(_system(prompt), prompt.user) for prompt in prompts])
    context = policy.model.config.max_context or math.inf
    why = f"with max_tokens of {most} over the model's context of {context}"
    replies = [Reply(None, refusal=f"the prompt takes {len(row)} tokens, {why}") for row in ids]
    asked = {i: row for i, row in enumerate(ids) if len(row) + most <= context}
    if asked:
        rows, sampling = list(asked.values()), Sampling(most, temperature=0.0)
        longest = power_of_two(max(map(len, rows)))
        with jax.set_mesh(loaded.mesh):
            batches = generate(loaded, rows, sampling, key(0, "judge"), judge.batch_size, longest)
            answers = [answer for batch in batches for answer in answers_of(policy, batch)]
        for i, (answer,) in zip(asked, answers, strict=True):
            replies[i] = Reply(answer.text, answer.truncated)
    return replies


def _system(prompt: Prompt) -> Persona | None:
    """A persona whose text is the judge's system message."""
    return Persona("judge", "judge", prompt.system, "judge", "heldout") if prompt.system else None

"""Asks the base and the trained policy of a run the same question, under any persona."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import jax
from ml_collections import ConfigDict

from permix_jax.app.best import chosen_step
from permix_jax.app.compilation import use_compilation_cache
from permix_jax.app.policies import policy_and_base
from permix_jax.app.templates import render as render_template
from permix_jax.core.json_lines import require_encodable
from permix_jax.core.keys import key
from permix_jax.core.persona import Persona
from permix_jax.core.places import place_of
from permix_jax.core.sharding import make_mesh
from permix_jax.evaluation.results import read_json
from permix_jax.models.policy import LoadedPolicy, Policy
from permix_jax.personas.prompts import render, render_text
from permix_jax.rollout.generate import Answer, answers_of, generate, power_of_two
from permix_jax.rollout.sampling import Sampling
from permix_jax.train.run import checkpoint

_SHORTEST = 64  # prompts are padded to at least this power of two, so that few programs compile


class CannotAsk(ValueError):
    """A prompt that the policies cannot be asked; a notebook shows its line without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"error: {self}"]


class Answers(NamedTuple):
    """The answers of both policies; notebooks show them as a table."""

    base: Answer
    trained: Answer

    def _repr_html_(self) -> str:
        return render_template("answers.html.jinja", answers=self).strip()


class Turn(NamedTuple):
    """A message, and what both policies answered."""

    message: str
    answers: Answers


@dataclass(frozen=True)
class Chat:
    """Both policies of a run, in memory."""

    placement: str  # where a persona given as text stands, as in `Persona`
    base: LoadedPolicy
    trained: LoadedPolicy

    def ask(
        self,
        persona: Persona | str | None,
        message: str,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
        turns: Sequence[Turn] = (),
    ) -> Answers:
        """Both policies' answers to a message. Without `turns` it begins a conversation.

        A policy of the embedded world knows only some words. It is asked in lower case with the
        punctuation apart, as it was trained: "you are a pirate ."

        Args:
          persona: one of a bank; or a system message, such as "You are a pirate."; or None.
          max_new_tokens: a longer answer is cut off.
          temperature: 0 is greedy.
          seed: of the draws, the same for both.
          turns: what was said before. Each policy sees its own answers.

        Raises CannotAsk for an empty message or persona, words that the tokenizer lacks, or a
        prompt that with `max_new_tokens` outgrows the model's context; and ValueError for a text
        that UTF-8 cannot hold.
        """
        if isinstance(persona, str):
            persona = Persona("chat", "chat", persona, "chat", "heldout", self.placement)
        sampling = Sampling(max_new_tokens, temperature)
        said = [[(turn.message, turn.answers[i].text) for turn in turns] for i in (0, 1)]

        def answer(asked: LoadedPolicy, before: list[tuple[str, str]]) -> Answer:
            prompt = _prompt(asked.policy, persona, message, max_new_tokens, before)
            longest = max(_SHORTEST, power_of_two(len(prompt)))
            (batch,) = generate(asked, [prompt], sampling, key(seed, "chat"), 1, longest)
            return answers_of(asked.policy, batch)[0][0]

        with jax.set_mesh(self.base.mesh):
            return Answers(answer(self.base, said[0]), answer(self.trained, said[1]))


def open_chat(workdir: Path | str, step: int | str | None = None, tensor: int = 1) -> Chat:
    """Loads both policies of a run. Under LoRA they share the weights of the base.

    `step` is of the checkpoint (None: the newest), or "best" (`train.keep_best`). `tensor` devices
    share heads and MLP, for a policy that outgrows one device. Raises FileNotFoundError without a
    run in `workdir` or such a checkpoint, ValueError where there are fewer devices.
    """
    workdir = place_of(workdir)
    record = read_json(workdir / "config.json")
    step = chosen_step(workdir, step)
    use_compilation_cache()
    mesh = make_mesh(1, 1, tensor)
    with jax.set_mesh(mesh):
        policy, stored = policy_and_base(ConfigDict(record["config"]), record["base"], mesh)
        base = stored.load()
        in_memory = replace(stored, load_params=lambda: base.params)
        trained = checkpoint(policy, in_memory, workdir, step).load()
    return Chat(record["config"]["personas"]["placement"], base, trained)


def _prompt(
    policy: Policy,
    persona: Persona | None,
    message: str,
    max_new_tokens: int,
    turns: list[tuple[str, str]],
) -> list[int]:
    """The token ids of the prompt, after the turns before it; raises as `Chat.ask`."""
    for name, text in ("persona", persona and persona.system_prompt), ("message", message):
        if text is not None and not text.strip():
            raise CannotAsk(f"{name} is empty; write one" + " or None" * (name == "persona"))
        require_encodable(text, f"the {name}")
    tokenizer, unknown = policy.tokenizer, policy.tokenizer.unk_token_id
    tokens = render(tokenizer, persona, message, turns)
    if unknown in tokens:
        persona = persona and replace(persona, system_prompt=_plain_words(persona.system_prompt))
        message, turns = _plain_words(message), [(_plain_words(said), a) for said, a in turns]
        tokens = render(tokenizer, persona, message, turns)
    if unknown in tokens:
        words = dict.fromkeys(render_text(tokenizer, persona, message).split())
        lacking = [word for word in words if unknown in tokenizer.encode(word)]
        raise CannotAsk(
            f"the policy's tokenizer lacks {', '.join(map(repr, lacking))}; leave out. The policy "
            "of the embedded world knows what training asked: 'what is 12 plus 34 ?' or 'tell me "
            "about the sea .', as 'you are a pirate .'"
        )
    context = policy.model.config.max_context
    if context and len(tokens) + max_new_tokens > context:
        remedy = f"ask shorter, {'begin anew, ' * bool(turns)}or lower max_new_tokens"
        raise CannotAsk(
            f"the prompt takes {len(tokens)} tokens, with max_new_tokens of {max_new_tokens} over "
            f"the model's context of {context}; {remedy}"
        )
    return tokens


def _plain_words(text: str) -> str:
    """In lower case, with punctuation apart: "What is 1 plus 2?" as "what is 1 plus 2 ?"."""
    return " ".join(re.findall(r"[.?!,;:]|[^\s.?!,;:]+", text.lower()))

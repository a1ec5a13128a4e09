"""Chat prompts: the persona is the system message or the top of the user turn.

The chat template writes the text around it. `formats/tokenizer.py` refuses templates that lose the
persona or the problem, and fixes their options: Qwen 3's thinking, Llama 3's date.
"""

import logging
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from permix_jax.core.field_rules import valid_value
from permix_jax.core.json_lines import require_encodable
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem

logger = logging.getLogger(__name__)


def chat_messages(
    persona: Persona | None, prompt: str, turns: Sequence[tuple[str, str]] = ()
) -> list[dict[str, str]]:
    """The conversation before the answer, in the form that chat templates take.

    A persona in the user's turn stands at the top of the first one, and a blank line follows it.
    `turns` has the messages and answers before the prompt.

    Raises ValueError for a text that UTF-8 cannot hold: no tokenizer takes it.
    """
    said = [text for turn in turns for text in turn] + [prompt]
    for text in said:
        require_encodable(text, "the prompt")
    messages = [{"role": "user", "content": text} for text in said]
    for answer in messages[1::2]:
        answer["role"] = "assistant"
    if persona is None:
        return messages
    text = persona.system_prompt
    require_encodable(text, f"the text of persona {persona.id!r}")
    if persona.placement == "user":
        messages[0]["content"] = f"{text}\n\n{said[0]}"
        return messages
    return [{"role": "system", "content": text}, *messages]


def render_text(tokenizer: PreTrainedTokenizerBase, persona: Persona | None, prompt: str) -> str:
    """The prompt as the model sees it, up to the beginning of the assistant's turn.

    Templates differ. Gemma's puts the system message into the user turn. SmolLM2's inserts a
    default system message if there is none; that is what "no persona" means for this model.
    """
    return tokenizer.apply_chat_template(
        chat_messages(persona, prompt), add_generation_prompt=True, tokenize=False
    )


def render(
    tokenizer: PreTrainedTokenizerBase,
    persona: Persona | None,
    prompt: str,
    turns: Sequence[tuple[str, str]] = (),
) -> list[int]:
    """The token ids of `render_text`, after the `turns` before it."""
    return _tokens(tokenizer, [chat_messages(persona, prompt, turns)])[0]


def fit_budget(
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    personas: Sequence[Persona],
    budget: int,
    on_overflow: str,
) -> list[Problem]:
    """The problems whose prompt fits into `budget` tokens, with each persona and without one.

    Raises:
      ValueError: an impossible value; a prompt over the budget if `on_overflow` is "error"; none
        that fits if it is "drop".
    """
    valid_value("rollout.max_prompt_tokens", budget)
    valid_value("rollout.on_overflow", on_overflow)
    if not problems:
        return []
    lengths = prompt_lengths(tokenizer, problems, personas)
    fitting = [p for p, length in zip(problems, lengths, strict=True) if length <= budget]
    if len(fitting) < len(problems) and on_overflow == "error":
        most = max(lengths)
        over = f"{len(problems) - len(fitting)} of {len(problems)} prompts are over {budget} tokens"
        raise ValueError(
            f"rollout.max_prompt_tokens is {budget}; {over}, the longest (problem "
            f"{problems[lengths.index(most)].id}) takes {most}: raise it to that, or set "
            "rollout.on_overflow to 'drop'"
        )
    if not fitting:
        raise ValueError(
            f"none of {len(problems)} prompts fits into {budget} tokens, the shortest takes "
            f"{min(lengths)}; raise rollout.max_prompt_tokens"
        )
    if dropped := len(problems) - len(fitting):
        said = "dropped %d of %d problems: prompt over %d tokens (rollout.max_prompt_tokens)"
        logger.warning(said, dropped, len(problems), budget)
    return fitting


def prompt_lengths(
    tokenizer: PreTrainedTokenizerBase, problems: Sequence[Problem], personas: Sequence[Persona]
) -> list[int]:
    """Tokens of each problem's prompt, of one problem or more.

    Each is rendered once, with the persona (or none) that takes most tokens.
    """
    candidates = [None, *personas]
    probes = render_all(tokenizer, [(persona, problems[0].prompt) for persona in candidates])
    longest = max(zip(candidates, probes, strict=True), key=lambda pair: len(pair[1]))[0]
    return [*map(len, render_all(tokenizer, [(longest, p.prompt) for p in problems]))]


def render_all(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[tuple[Persona | None, str]]
) -> list[list[int]]:
    """The token ids of each prompt, with a BOS token only if the template writes one."""
    if not prompts:  # transformers reads [] as one conversation without messages
        return []
    return _tokens(tokenizer, [chat_messages(persona, prompt) for persona, prompt in prompts])


def _tokens(tokenizer: PreTrainedTokenizerBase, conversations: list[list[dict]]) -> list[list[int]]:
    return tokenizer.apply_chat_template(
        conversations, add_generation_prompt=True, return_dict=False
    )

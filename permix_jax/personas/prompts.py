"""Chat prompts: a persona is the system message or the top of the user turn, the problem its rest.

The text around them is the chat template's. `formats/tokenizer.py` refuses templates that lose one
of the two, and settles what templates leave open: Qwen 3's thinking, Llama 3's date.
"""

import logging
from collections.abc import Sequence

from transformers import PreTrainedTokenizerBase

from permix_jax.core.field_rules import valid_value
from permix_jax.core.json_lines import require_encodable
from permix_jax.core.persona import Persona
from permix_jax.core.problem import Problem

logger = logging.getLogger(__name__)


def chat_messages(persona: Persona | None, prompt: str) -> list[dict[str, str]]:
    """The conversation before the answer, in the form that chat templates take.

    A persona placed in the user turn stands before the problem, with a blank line between them.

    Raises ValueError for a text that no tokenizer takes: one that UTF-8 cannot hold.
    """
    require_encodable(prompt, "the prompt")
    if persona is not None:
        require_encodable(persona.system_prompt, f"the text of persona {persona.id!r}")
    if persona is not None and persona.placement == "user":
        return [{"role": "user", "content": f"{persona.system_prompt}\n\n{prompt}"}]
    user = {"role": "user", "content": prompt}
    if persona is None:
        return [user]
    return [{"role": "system", "content": persona.system_prompt}, user]


def render_text(tokenizer: PreTrainedTokenizerBase, persona: Persona | None, prompt: str) -> str:
    """The prompt as the model sees it, up to where the assistant begins to speak.

    What a template makes of these messages is its own affair. Gemma's has no system turn and puts
    the system message before the user's, in the same turn. Without one, SmolLM2's inserts a
    default, and that is then what "no persona" means for it.
    """
    return tokenizer.apply_chat_template(
        chat_messages(persona, prompt), add_generation_prompt=True, tokenize=False
    )


def render(tokenizer: PreTrainedTokenizerBase, persona: Persona | None, prompt: str) -> list[int]:
    """The token ids of `render_text`."""
    return render_all(tokenizer, [(persona, prompt)])[0]


def fit_budget(
    tokenizer: PreTrainedTokenizerBase,
    problems: Sequence[Problem],
    personas: Sequence[Persona],
    budget: int,
    on_overflow: str,
) -> list[Problem]:
    """The problems whose prompt fits into `budget` tokens under every persona and under none.

    Each problem is rendered once, with the persona (or none) whose rendered prompt is longest.

    Raises:
      ValueError: values that the config may not have; a prompt over the budget where `on_overflow`
        is "error"; none that fits where it is "drop".
    """
    valid_value("rollout.max_prompt_tokens", budget)
    valid_value("rollout.on_overflow", on_overflow)
    if not problems:
        return []
    candidates = [None, *personas]
    probes = render_all(tokenizer, [(persona, problems[0].prompt) for persona in candidates])
    longest = max(zip(candidates, probes, strict=True), key=lambda pair: len(pair[1]))[0]
    rendered = render_all(tokenizer, [(longest, problem.prompt) for problem in problems])
    lengths = [len(ids) for ids in rendered]

    if on_overflow == "error":
        for problem, length in zip(problems, lengths, strict=True):
            if length > budget:
                raise ValueError(
                    f"problem {problem.id}: its prompt takes {length} tokens, over the budget of "
                    f"{budget}; raise rollout.max_prompt_tokens or set rollout.on_overflow to "
                    "'drop'"
                )
    fitting = [p for p, length in zip(problems, lengths, strict=True) if length <= budget]
    if not fitting:
        raise ValueError(
            f"none of {len(problems)} prompts fits into {budget} tokens, the shortest takes "
            f"{min(lengths)}; raise rollout.max_prompt_tokens"
        )
    if dropped := len(problems) - len(fitting):
        logger.warning(
            "dropped %d of %d problems: prompt over %d tokens (rollout.max_prompt_tokens)",
            dropped,
            len(problems),
            budget,
        )
    return fitting


def render_all(
    tokenizer: PreTrainedTokenizerBase, prompts: Sequence[tuple[Persona | None, str]]
) -> list[list[int]]:
    """The token ids of each prompt's text; a BOS token is there if the template writes it."""
    if not prompts:  # which transformers takes for a conversation without a message
        return []
    return tokenizer.apply_chat_template(
        [chat_messages(persona, prompt) for persona, prompt in prompts],
        add_generation_prompt=True,
        return_dict=False,
    )

"""Tokenizers of pretrained models: vocabulary, chat template, pad and end tokens, all checked."""

import json
import logging
import re
from numbers import Real
from pathlib import Path

from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from permix_jax.core.files import read_object, require_file

logger = logging.getLogger(__name__)

# Models pad their embeddings to round sizes: the supported ones by less than this share.
_MAX_PADDING = 0.02

# A default that is written at the head of a template. So prompts are rendered without arguments,
# and an exported tokenizer renders what was trained. (trim_blocks removes the newline.)
_DEFAULT = "{{%- set {0} = {0} if {0} is defined else {1} %}}\n"
_DEFAULTS_THERE = re.compile(r"\A(\{%- set (\w+) = \2 if \2 is defined else [^%\n]+ %\}\n)+")

# The date that templates of Llama 3.1 and 3.3 write if none is given; that of 3.2 writes today's.
_DATE = '"26 Jul 2024"'
_DATE_OF_TODAY = "{%- macro strftime_now(format) %}<today>{% endmacro %}\n"

_SYSTEM = {"role": "system", "content": "You keep a lighthouse."}
_USER = {"role": "user", "content": "How much is six plus seven?"}
_ASSISTANT = {"role": "assistant", "content": "It is thirteen."}


def load_tokenizer(
    folder: Path, vocab_size: int, pad_token: str = "", thinking: bool = False
) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a Hugging Face folder, with a pad token and a chat template.

    Defaults are written into the template: for `enable_thinking` (Qwen 3) the argument `thinking`,
    for `date_string` (Llama 3) 26 Jul 2024. A caller can still give others. Special tokens beyond
    the model's vocabulary that have no role are left out, with a warning. (Gemma 3 has one for
    pictures, also where the model has no embedding for it.)

    Raises FileNotFoundError without a tokenizer.json; ValueError if the tokenizer is of another
    model, has no pad token or chat template, or one that drops a persona, depends on the day, or
    has no switch for `thinking`.

    Args:
      vocab_size: rows of the model's embedding.
      pad_token: "" for the tokenizer's own.
      thinking: whether prompts ask for thinking before the answer.
    """
    tokenizer = _read_tokenizer(folder)
    tokenizer.chat_template = _with_defaults(_chat_template(folder, tokenizer), thinking)
    tokenizer = _within_vocabulary(tokenizer, vocab_size)
    _set_pad_token(tokenizer, pad_token)
    _require_usable_template(tokenizer)
    return tokenizer


def _read_tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    path, remedy = folder / "tokenizer.json", "save the model's fast tokenizer there"
    if (folder / "tokenizer.model").is_file():
        remedy = "tokenizer.model alone is not read: save the model's fast tokenizer there"
    require_file(path, remedy)
    for name in ("tokenizer_config.json", "special_tokens_map.json"):
        _read_if_there(folder / name)
    try:
        # Not AutoTokenizer: some classes rebuild the pre-tokenizer and ignore the file's.
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    except Exception as error:  # the Rust library raises no narrower class
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(
            f"tokenizer.json and the files beside it cannot be read ({reason}); fetch them again"
        ) from None
    if not isinstance(tokenizer.model_max_length, Real):
        raise ValueError(
            f"{folder / 'tokenizer_config.json'}: model_max_length is "
            f"{tokenizer.model_max_length!r}; it must be a number"
        )
    return tokenizer


def end_tokens(folder: Path, hf_config: dict, tokenizer) -> tuple[int, ...]:
    """Ids that end a completion: those of generation_config.json, or config.json, or the tokenizer.

    The first one ends an assistant's turn in the chat template, if the template has such a token.
    SFT appends that one. It is put first because Llama 3 lists <|end_of_text|> before <|eot_id|>,
    and it is added where no file lists it: configs of base models list only a document's end.

    Raises ValueError if there is none, or one that the tokenizer does not have.
    """
    configs = _read_if_there(folder / "generation_config.json"), hf_config
    listed = [*(config.get("eos_token_id") for config in configs), tokenizer.eos_token_id]
    ends = next((ends for ends in listed if ends not in (None, [])), None)
    if ends is None:
        raise ValueError("no end token; set eos_token_id in generation_config.json")
    ends, known = ends if isinstance(ends, list) else [ends], tokenizer.get_vocab().values()
    if odd := [end for end in ends if type(end) is not int or end not in known]:
        raise ValueError(
            f"eos_token_id = {odd[0]} is no token of tokenizer.json; "
            "take generation_config.json and tokenizer from the same checkpoint"
        )
    first = _turn_end(tokenizer, ends)
    return tuple(ends) if first is None else (first, *(end for end in ends if end != first))


def _chat_template(folder: Path, tokenizer) -> str:
    template = tokenizer.chat_template
    if isinstance(template, dict):
        template = template.get("default")
    # Processors of multimodal models once kept it there.
    template = template or _read_if_there(folder / "chat_template.json").get("chat_template")
    if not template or not isinstance(template, str):
        raise ValueError(
            "no chat template in chat_template.jinja, tokenizer_config.json or chat_template.json; "
            "take the instruct version of the model, or add one"
        )
    return template


def _with_defaults(template: str, thinking: bool) -> str:
    """The template with defaults for the variables that it has, in place of earlier defaults."""
    template = _DEFAULTS_THERE.sub("", template)
    values = {"enable_thinking": str(thinking).lower(), "date_string": _DATE}
    values = {name: v for name, v in values.items() if re.search(rf"\b{name}\b", template)}
    if thinking and "enable_thinking" not in values:
        raise ValueError(
            "model.thinking is True, but the chat template has no enable_thinking; "
            "set model.thinking to False"
        )
    return "".join(_DEFAULT.format(*item) for item in values.items()) + template


def _within_vocabulary(tokenizer, vocab_size: int) -> PreTrainedTokenizerFast:
    def refuse(size: int, relation: str):
        raise ValueError(
            f"tokenizer.json has {size} tokens, {relation} config.json's vocab_size = "
            f"{vocab_size}; take both from the same checkpoint"
        )

    vocabulary = tokenizer.get_vocab()
    beyond = {token for token, i in vocabulary.items() if i >= vocab_size}
    special = {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    names = ("bos_token", "eos_token", "unk_token", "pad_token")
    roles = {name: token for name in names if (token := getattr(tokenizer, name)) is not None}
    in_use = [t for t in beyond if t in roles.values() or t in tokenizer.chat_template]
    if in_use or not beyond <= special:
        refuse(max(vocabulary.values()) + 1, "over")
    if len(vocabulary) < (1 - _MAX_PADDING) * vocab_size:
        refuse(len(vocabulary), "far under")
    if not beyond:
        return tokenizer
    logger.warning("tokens without an embedding are left out: %s", ", ".join(sorted(beyond)))
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    state["added_tokens"] = [t for t in state["added_tokens"] if t["content"] not in beyond]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(json.dumps(state)),
        chat_template=tokenizer.chat_template,
        model_max_length=tokenizer.model_max_length,
        clean_up_tokenization_spaces=tokenizer.clean_up_tokenization_spaces,
        **roles,
    )


def _set_pad_token(tokenizer, pad_token: str) -> None:
    vocabulary = tokenizer.get_vocab()
    if pad_token:
        if pad_token not in vocabulary:
            raise ValueError(
                f"model.pad_token is {pad_token!r}, no token of tokenizer.json; name one"
            )
        tokenizer.pad_token = pad_token
    if tokenizer.pad_token is None:
        named_so = [t for t in vocabulary if re.fullmatch(r"[<\[].*pad.*[>\]]", t, re.IGNORECASE)]
        proposed = min(named_so, key=vocabulary.get, default=tokenizer.eos_token)
        hint = f", such as {proposed!r}" if proposed else ""
        raise ValueError(
            f"the tokenizer has no pad token; set model.pad_token to one of its tokens{hint}"
        )


def _require_usable_template(tokenizer) -> None:
    folder = "use a folder whose chat_template.jinja"
    plain, error = _render(tokenizer, [_USER])
    if error:
        raise ValueError(f"the chat template fails ({error}); {folder} works")
    whole, error = _render(tokenizer, [_SYSTEM, _USER])
    if error:
        raise ValueError(
            f"the chat template takes no system message ({error}), which a persona is; "
            f"{folder} does"
        )
    for message, text in ((_USER, plain), (_SYSTEM, whole), (_USER, whole)):
        if message["content"] not in text:
            persona = ", which a persona is" if message is _SYSTEM else ""
            raise ValueError(
                f"the chat template drops the {message['role']} message{persona}; {folder} keeps it"
            )
    template = _DATE_OF_TODAY + tokenizer.chat_template
    if "<today>" in _render(tokenizer, [_SYSTEM, _USER], chat_template=template)[0]:
        raise ValueError(
            "the chat template writes today's date (strftime_now), and a run must not depend on "
            f"the day; {folder} has a fixed date"
        )


def _render(tokenizer, messages: list[dict[str, str]], **options) -> tuple[str, str]:
    """(text, ""), or ("", error in one line) where the template fails."""
    try:
        return tokenizer.apply_chat_template(messages, tokenize=False, **options), ""
    except Exception as error:  # a template is a program: it may fail in any way
        return "", str(error).strip().split("\n")[0] or type(error).__name__


def _turn_end(tokenizer, ends: list[int]) -> int | None:
    """The first special token after an assistant's message; None where there is none."""
    text, _ = _render(tokenizer, [_USER, _ASSISTANT])
    _, found, rest = text.rpartition(_ASSISTANT["content"])
    if not found:
        return None
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    special |= {*tokenizer.all_special_ids, *ends}
    ids = tokenizer(rest, add_special_tokens=False)["input_ids"]
    return next((i for i in ids if i in special), None)


def _read_if_there(path: Path) -> dict:
    return read_object(path, "fetch it again") if path.is_file() else {}

"""Chat templates of the families, written anew: what they render is what the published ones do."""

import json
from pathlib import Path
from typing import NamedTuple

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

from permix_jax.core.persona import Persona
from permix_jax.formats.tokenizer import load_tokenizer

PIRATE = Persona("pirate", "Pirate", "You are a pirate.", "fictional", "train")
SUM = "What is 2 + 2?"

# {date} is replaced. Contents are trimmed; there is a system turn in any case.
_LLAMA = """\
{{- bos_token }}
{date}
{%- set persona = "" %}
{%- if messages[0].role == "system" %}
    {%- set persona = messages[0].content | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- macro turn(role, content) %}
    {{- "<|start_header_id|>" + role + "<|end_header_id|>\\n\\n" + content + "<|eot_id|>" }}
{%- endmacro %}
{{- turn("system", "Cutting Knowledge Date: December 2023\\nToday Date: " + date_string
    + "\\n\\n" + persona) }}
{%- for message in messages %}
    {{- turn(message.role, message.content | trim) }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|start_header_id|>assistant<|end_header_id|>\\n\\n" }}
{%- endif %}
"""
_DATE = "{%- if date_string is not defined %}{% set date_string = VALUE %}{% endif %}"
LLAMA31 = _LLAMA.replace("{date}", _DATE.replace("VALUE", '"26 Jul 2024"'))
LLAMA32 = _LLAMA.replace("{date}", _DATE.replace("VALUE", 'strftime_now("%d %b %Y")'))

QWEN3 = """\
{%- for message in messages %}
    {{- "<|im_start|>" + message.role + "\\n" }}
    {%- if message.role == "assistant" and loop.last %}
        {{- "<think>\\n\\n</think>\\n\\n" }}
    {%- endif %}
    {{- message.content + "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\\n" }}
    {%- if enable_thinking is defined and not enable_thinking %}
        {{- "<think>\\n\\n</think>\\n\\n" }}
    {%- endif %}
{%- endif %}"""

# Roles between marks. Where no persona is set, the model has one of its own.
_CHATML = """\
{%- if messages[0].role != "system" %}
    {{- "<|im_start|>system\\nOWN_PERSONA<|im_end|>\\n" }}
{%- endif %}
{%- for message in messages %}
    {{- "<|im_start|>" + message.role + "\\n" + message.content + "<|im_end|>\\n" }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<|im_start|>assistant\\n" }}
{%- endif %}
"""
SMOLLM2 = _CHATML.replace(
    "OWN_PERSONA", "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
)
# Qwen 2 and Qwen2.5-Math differ in the words that stand for a persona alone.
QWEN25 = _CHATML.replace(
    "OWN_PERSONA", "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."
)

# DeepSeek's distillations of R1 into Qwen 2.5 and Llama 3. A persona stands bare at the head, an
# answer is shown without what was thought, and every answer begins by thinking.
R1 = """\
{{- bos_token }}
{%- if messages[0].role == "system" %}
    {{- messages[0].content }}
    {%- set messages = messages[1:] %}
{%- endif %}
{%- for message in messages %}
    {%- if message.role == "user" %}
        {{- "<｜User｜>" + message.content }}
    {%- else %}
        {{- "<｜Assistant｜>" + message.content.split("</think>")[-1] }}
        {{- "<｜end▁of▁sentence｜>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- "<｜Assistant｜><think>\\n" }}
{%- endif %}
"""

GEMMA3 = """\
{{ bos_token }}
{%- set ns = namespace(persona="") -%}
{%- for message in messages -%}
    {%- if message.role == "system" -%}
        {%- set ns.persona = message.content + "\\n\\n" -%}
    {%- else -%}
        {{ "<start_of_turn>" + {"user": "user", "assistant": "model"}[message.role] + "\\n" }}
        {{- ns.persona + message.content | trim + "<end_of_turn>\\n" }}
        {%- set ns.persona = "" -%}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ "<start_of_turn>model\\n" }}{%- endif -%}
"""


class Family(NamedTuple):
    """A template and the special tokens it goes with.

    pad: "" where the published tokenizer has none. listed: the end tokens of the published
    generation_config.json, in its order.
    """

    template: str
    special: tuple[str, ...]
    listed: tuple[str, ...]
    bos: str = ""
    pad: str = ""


_LLAMA_TOKENS = (
    "<|begin_of_text|> <|end_of_text|> <|start_header_id|> <|end_header_id|> <|eom_id|> <|eot_id|> "
    "<|finetune_right_pad_id|>"
).split()
_LLAMA_ENDS = ("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>")
_QWEN_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_R1_TOKENS = ("<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜User｜>", "<｜Assistant｜>")
_R1_ENDS = ("<｜end▁of▁sentence｜>",)
_GEMMA_TOKENS = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")

FAMILIES = {
    "llama31": Family(LLAMA31, tuple(_LLAMA_TOKENS), _LLAMA_ENDS, "<|begin_of_text|>"),
    "llama32": Family(LLAMA32, tuple(_LLAMA_TOKENS), _LLAMA_ENDS, "<|begin_of_text|>"),
    "qwen25": Family(QWEN25, _QWEN_TOKENS, ("<|im_end|>", "<|endoftext|>"), pad="<|endoftext|>"),
    "r1": Family(R1, _R1_TOKENS, _R1_ENDS, "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"),
    "qwen3": Family(QWEN3, _QWEN_TOKENS, ("<|im_end|>", "<|endoftext|>"), pad="<|endoftext|>"),
    "gemma3": Family(GEMMA3, _GEMMA_TOKENS, ("<eos>", "<end_of_turn>"), "<bos>", "<pad>"),
    "smollm2": Family(SMOLLM2, _QWEN_TOKENS, ("<|im_end|>",), "<|im_start|>", "<|im_end|>"),
}


def write_tokenizer(folder: Path, family: Family) -> int:
    """A byte-level tokenizer with the family's special tokens; returns its number of tokens.

    Like the published ones of Llama and Gemma it puts BOS before any text, and end tokens are in
    generation_config.json.
    """
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*family.special, *letters])}
    backend = Tokenizer(models.BPE(vocabulary, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_tokens([AddedToken(t, normalized=False, special=True) for t in family.special])
    if family.bos:
        backend.post_processor = processors.TemplateProcessing(
            single=f"{family.bos} $A", special_tokens=[(family.bos, vocabulary[family.bos])]
        )
    roles = {"bos_token": family.bos, "pad_token": family.pad, "eos_token": family.listed[0]}
    PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=family.template,
        clean_up_tokenization_spaces=False,
        **{role: token for role, token in roles.items() if token},
    ).save_pretrained(folder)
    ends = {"eos_token_id": [vocabulary[token] for token in family.listed]}
    (folder / "generation_config.json").write_text(json.dumps(ends))
    return len(vocabulary)


def load(folders: dict[str, tuple[Path, int]], family: str, thinking: bool = False):
    """Our tokenizer of a family, from its folder and number of tokens; one for padding is named."""
    folder, vocab_size = folders[family]
    pad = "" if FAMILIES[family].pad else "<|finetune_right_pad_id|>"
    return load_tokenizer(folder, vocab_size, pad, thinking)

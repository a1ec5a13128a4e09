"""Tokenizers of pretrained models: what is checked, and what is set."""

import json
import logging

import pytest
from chat_templates import FAMILIES, LLAMA32, PIRATE, QWEN3, SMOLLM2, SUM, load, write_tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from permix_jax.formats.tokenizer import end_tokens, load_tokenizer
from permix_jax.personas.prompts import chat_messages, render, render_text

PIRATE_PROMPT = (  # of SmolLM2
    "<|im_start|>system\nYou are a pirate.<|im_end|>\n<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n"
    "<|im_start|>assistant\n"
)

LLAMA_ENDS = ["<|eot_id|>", "<|end_of_text|>", "<|eom_id|>"]
ENDS = {
    "llama31": LLAMA_ENDS,
    "llama32": LLAMA_ENDS,
    "qwen25": ["<|im_end|>", "<|endoftext|>"],
    "r1": ["<｜end▁of▁sentence｜>"],
    "qwen3": ["<|im_end|>", "<|endoftext|>"],
    "gemma3": ["<end_of_turn>", "<eos>"],
    "smollm2": ["<|im_end|>"],
}
VOCAB = 259  # of the simplest family: 256 bytes and 3 special tokens


@pytest.fixture
def folder(tmp_path):
    """A folder of the simplest family, to be spoilt; VOCAB tokens."""
    assert write_tokenizer(tmp_path, FAMILIES["smollm2"]) == VOCAB
    return tmp_path


def rewrite(folder, **fields):
    """Changes tokenizer_config.json; None removes a field."""
    path = folder / "tokenizer_config.json"
    content = json.loads(path.read_text()) | fields
    path.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))


def set_template(folder, template):
    (folder / "chat_template.jinja").write_text(template)


def refusal(folder, vocab_size=VOCAB, **options):
    with pytest.raises(ValueError) as error:
        load_tokenizer(folder, vocab_size, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_defaults_are_written_once_and_only_where_they_are_asked_for(folders, tmp_path):
    tokenizer = load(folders, "qwen3", thinking=True)
    head = "{%- set enable_thinking = enable_thinking if enable_thinking is defined else true %}\n"
    assert tokenizer.chat_template == head + QWEN3
    tokenizer.save_pretrained(tmp_path)
    vocab_size = folders["qwen3"][1]
    assert load_tokenizer(tmp_path, vocab_size, thinking=True).chat_template == head + QWEN3
    off = head.replace("else true", "else false")
    assert load_tokenizer(tmp_path, vocab_size).chat_template == off + QWEN3

    head = '{%- set date_string = date_string if date_string is defined else "26 Jul 2024" %}\n'
    assert load(folders, "llama32").chat_template == head + LLAMA32
    assert load(folders, "smollm2").chat_template == SMOLLM2


def test_a_template_that_begins_with_space_keeps_it(folder):
    set_template(folder, "\n{# enable_thinking #}" + SMOLLM2.replace("{%-", "{%", 1))
    text = render_text(load_tokenizer(folder, VOCAB), PIRATE, SUM)
    assert text == "\n" + PIRATE_PROMPT


def test_saved_again_nothing_changes(folders, tmp_path):
    load(folders, "llama31").save_pretrained(tmp_path / "a")
    load_tokenizer(tmp_path / "a", folders["llama31"][1]).save_pretrained(tmp_path / "b")
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir())
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


# Chat templates


@pytest.mark.parametrize(
    "place", ["chat_template.jinja", "chat_template.json", "tokenizer_config.json", "several"]
)
def test_a_template_is_found_in_each_of_its_places(folder, place):
    expected = load_tokenizer(folder, VOCAB).chat_template
    named = {"tool_use": "{{ tools }}", "default": SMOLLM2}
    several = [{"name": n, "template": t} for n, t in named.items()]
    (folder / "chat_template.jinja").unlink()
    if place.startswith("chat_template"):
        is_json = place.endswith("json")
        (folder / place).write_text(json.dumps({"chat_template": SMOLLM2}) if is_json else SMOLLM2)
    else:
        rewrite(folder, chat_template=several if place == "several" else SMOLLM2)
    assert load_tokenizer(folder, VOCAB).chat_template == expected


def test_no_template_is_refused(folder):
    (folder / "chat_template.jinja").unlink()
    assert refusal(folder) == (
        "no chat template in chat_template.jinja, tokenizer_config.json or chat_template.json; "
        "take the instruct version of the model, or add one"
    )
    (folder / "chat_template.json").write_text('{"chat_template":\n}')
    assert refusal(folder).startswith(f"{folder}/chat_template.json:2: not JSON (")


@pytest.mark.parametrize(
    ("template", "message", "remedy"),
    [
        (
            "{% for m in messages if m.role != 'system' %}{{ m.content }}{% endfor %}",
            "drops the system message, which a persona is",
            "keeps it",
        ),
        ("{{ messages[0].content }}", "drops the user message", "keeps it"),
        ("{{ messages[1].content }}", "fails (list object has no element 1)", "works"),
        (
            "{% if messages[0].role == 'system' %}"
            "{{ raise_exception('System role not supported') }}{% endif %}"
            "{{ messages[0].content }}",
            "takes no system message (System role not supported), which a persona is",
            "does",
        ),
        ("{{ messages[0].content }", "fails (unexpected '}')", "works"),
        (
            SMOLLM2 + "{{ strftime_now('%Y') }}",
            "writes today's date (strftime_now), and a run must not depend on the day",
            "has a fixed date",
        ),
    ],
)
def test_a_template_that_cannot_be_used_is_refused(folder, template, message, remedy):
    set_template(folder, template)
    use = f"use a folder whose chat_template.jinja {remedy}"
    assert refusal(folder) == f"the chat template {message}; {use}"


def test_thinking_without_a_switch_is_refused(folder):
    assert refusal(folder, thinking=True) == (
        "model.thinking is True, but the chat template has no enable_thinking; "
        "set model.thinking to False"
    )


# Pad token and vocabulary


def test_pad_tokens(folders):
    assert load(folders, "gemma3").pad_token == "<pad>"
    folder, vocab_size = folders["llama31"]
    assert refusal(folder, vocab_size) == (
        "the tokenizer has no pad token; set model.pad_token to one of its tokens, such as "
        "'<|finetune_right_pad_id|>'"
    )
    assert refusal(folder, vocab_size, pad_token="<nope>") == (
        "model.pad_token is '<nope>', no token of tokenizer.json; name one"
    )
    tokenizer = load_tokenizer(folder, vocab_size, pad_token="<|eom_id|>")
    assert (tokenizer.pad_token, len(tokenizer)) == ("<|eom_id|>", vocab_size)


def test_without_a_token_named_pad_the_end_is_proposed(folder):
    rewrite(folder, pad_token=None)
    assert refusal(folder).endswith("model.pad_token to one of its tokens, such as '<|im_end|>'")
    rewrite(folder, eos_token=None)
    assert refusal(folder).endswith("set model.pad_token to one of its tokens")


def test_a_vocabulary_unlike_the_models_is_refused(folder):
    assert refusal(folder, VOCAB - 1) == (
        "tokenizer.json has 259 tokens, over config.json's vocab_size = 258; "
        "take both from the same checkpoint"
    )
    assert load_tokenizer(folder, 264).pad_token_id == 2  # 259 = 98.1 % of 264
    assert refusal(folder, 265) == (
        "tokenizer.json has 259 tokens, far under config.json's vocab_size = 265; "
        "take both from the same checkpoint"
    )


def test_a_token_in_use_beyond_the_vocabulary_is_refused(folder):
    raw = PreTrainedTokenizerFast.from_pretrained(folder, bos_token="<new>")
    raw.save_pretrained(folder)
    assert refusal(folder).startswith("tokenizer.json has 260 tokens, over config.json's")
    rewrite(folder, bos_token=None)
    set_template(folder, SMOLLM2 + "<new>")
    assert refusal(folder).startswith("tokenizer.json has 260 tokens, over config.json's")


def test_a_token_for_pictures_beyond_the_vocabulary_is_left_out(folders, tmp_path, caplog):
    folder, vocab_size = folders["gemma3"]
    raw = PreTrainedTokenizerFast.from_pretrained(folder)
    raw.add_tokens("<image_soft_token>", special_tokens=True)
    raw.save_pretrained(tmp_path)
    rewrite(tmp_path, image_token="<image_soft_token>", boi_token="<start_of_turn>")
    assert raw.convert_tokens_to_ids("<image_soft_token>") == vocab_size

    caplog.set_level(logging.WARNING)
    tokenizer = load_tokenizer(tmp_path, vocab_size)
    assert caplog.messages == ["tokens without an embedding are left out: <image_soft_token>"]
    assert len(tokenizer) == vocab_size
    ids = render(tokenizer, PIRATE, "<image_soft_token>")
    assert max(ids) < vocab_size and tokenizer.decode(ids) == (
        "<bos><start_of_turn>user\nYou are a pirate.\n\n<image_soft_token><end_of_turn>\n"
        "<start_of_turn>model\n"
    )
    same = load(folders, "gemma3")
    assert tokenizer.special_tokens_map == same.special_tokens_map
    assert render(tokenizer, PIRATE, SUM) == render(same, PIRATE, SUM)

    tokenizer.save_pretrained(tmp_path / "again")
    assert len(AutoTokenizer.from_pretrained(tmp_path / "again")) == vocab_size


# End tokens


@pytest.mark.parametrize("family", FAMILIES)
def test_the_end_of_a_turn_is_the_first_end_token(folders, family):
    tokenizer = load(folders, family)
    ends = end_tokens(folders[family][0], {}, tokenizer)
    assert tokenizer.convert_ids_to_tokens(ends) == ENDS[family]
    turn = [*chat_messages(PIRATE, SUM), {"role": "assistant", "content": "4"}]
    text = tokenizer.apply_chat_template(turn, tokenize=False)
    assert text.rstrip("\n").endswith("4" + ENDS[family][0])


def test_end_tokens_are_looked_for_in_three_places(folder):
    tokenizer = load_tokenizer(folder, VOCAB)
    path = folder / "generation_config.json"
    assert end_tokens(folder, {"eos_token_id": 0}, tokenizer) == (2,)
    path.write_text('{"do_sample": true, "eos_token_id": []}')
    assert end_tokens(folder, {"eos_token_id": [0, 1, 2]}, tokenizer) == (2, 0, 1)
    # The template's end of a turn is there even where the config of a base model lacks it.
    assert end_tokens(folder, {"eos_token_id": 0}, tokenizer) == (2, 0)
    path.unlink()
    tokenizer.eos_token = "<|endoftext|>"
    assert end_tokens(folder, {"eos_token_id": None}, tokenizer) == (2, 0)

    # Without a special token behind the assistant's words, the listed order stays.
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    assert end_tokens(folder, {"eos_token_id": [0, 2]}, tokenizer) == (0, 2)
    tokenizer.chat_template = "{{ messages[0].content }}"
    assert end_tokens(folder, {"eos_token_id": [0, 2]}, tokenizer) == (0, 2)


def test_missing_and_unknown_end_tokens_are_refused(folder):
    tokenizer = load_tokenizer(folder, VOCAB)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 259]}')
    message = "eos_token_id = 259 is no token of tokenizer.json; take generation_config.json and "
    with pytest.raises(ValueError, match=f"^{message}tokenizer from the same checkpoint$"):
        end_tokens(folder, {}, tokenizer)
    (folder / "generation_config.json").write_text("{}")
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="^no end token; set eos_token_id in generation_config"):
        end_tokens(folder, {}, tokenizer)

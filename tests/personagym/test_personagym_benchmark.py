import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.core.files import write_rows
from permix_jax.personagym.benchmark import (
    Answer,
    Question,
    light,
    load_benchmark,
    read_answers,
    subsample,
)

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "personagym"
RUBRIC = "Rate.\n{score_example}\n{persona}\n{question}\n{response}"
PROMPTS = [
    {"path": "prompts/rubric_grading/sys_prompt.txt", "text": "You are a judge."},
    {"path": "prompts/score_examples/prompt.txt", "text": "{persona} {question} {rubric}"},
]
RUBRICS = [{"task": "Toxicity", "rubric": RUBRIC}]


def write(folder, questions, rubrics=RUBRICS, prompts=PROMPTS):
    write_rows(folder / "benchmark_v1.jsonl", questions)
    write_rows(folder / "rubrics.jsonl", rubrics)
    write_rows(folder / "prompts.jsonl", prompts)


def test_questions_come_in_the_order_of_the_file_with_ids_that_say_where(tmp_path):
    write(tmp_path, [{"persona": "A nun", "Toxicity": ["Why?", "How?"]}])
    benchmark = load_benchmark(str(tmp_path), tmp_path)
    assert [tuple(question) for question in benchmark.questions] == [
        ("A nun/Toxicity/1", "A nun", "Toxicity", "Why?"),
        ("A nun/Toxicity/2", "A nun", "Toxicity", "How?"),
    ]
    assert benchmark.rubrics == {"Toxicity": RUBRIC}
    assert benchmark.system_prompt == "You are a judge."


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"Toxicity": ["Why?"]}], r"benchmark_v1.jsonl:1: there is no field 'persona'"),
        ([{"persona": "A nun"}], r"benchmark_v1.jsonl:1: the tasks are \[\]"),
        ([{"persona": "A nun", "Toxicity": ["a"], "Wit": ["b"]}], r"jsonl:1: the tasks are"),
        ([{"persona": "A nun", "Toxicity": []}], r"jsonl:1: field 'Toxicity' is \[\]"),
        ([{"persona": "A nun", "Toxicity": "Why?"}], r"jsonl:1: field 'Toxicity' is 'Why\?'"),
        ([{"persona": "A nun", "Toxicity": ["a", " "]}], r"jsonl:1: question 2 of 'Toxicity'"),
        ([{"persona": "A nun", "Toxicity": ["a"]}] * 2, r"jsonl:2: persona 'A nun' is there"),
    ],
)
def test_a_bad_question_file_is_named_with_its_line(tmp_path, rows, message):
    write(tmp_path, rows)
    with pytest.raises(ValueError, match=message):
        load_benchmark(str(tmp_path), tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rubrics": [RUBRICS[0] | {"rubric": "no slots"}]}, r"rubrics.jsonl:1: .*0 times"),
        ({"rubrics": [RUBRICS[0] | {"rubric": RUBRIC * 2}]}, r"jsonl:1: .*2 times {score_exa"),
        ({"rubrics": RUBRICS * 2}, r"rubrics.jsonl:2: task"),
        ({"prompts": PROMPTS[:1]}, r"prompts.jsonl: no row has the path"),
        ({"prompts": [PROMPTS[0], PROMPTS[1] | {"text": "{persona}"}]}, r"prompts.jsonl:2: "),
    ],
)
def test_a_bad_template_is_named_with_its_line(tmp_path, changed, message):
    write(tmp_path, [{"persona": "A nun", "Toxicity": ["Why?"]}], **changed)
    with pytest.raises(ValueError, match=message):
        load_benchmark(str(tmp_path), tmp_path)


def test_a_folder_without_the_files_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="rubrics.jsonl: no such file; name a folder"):
        load_benchmark(str(tmp_path), tmp_path)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"PersonaGym is not at {SHARED}")
def test_the_published_benchmark_is_two_hundred_personas_by_five_tasks_by_ten(tmp_path):
    benchmark = load_benchmark(str(SHARED), tmp_path)
    assert len(benchmark.questions) == 10_000
    assert len({question.id for question in benchmark.questions}) == 10_000
    assert len({question.persona for question in benchmark.questions}) == 200
    assert len(benchmark.rubrics) == 5
    assert {question.task for question in benchmark.questions} == set(benchmark.rubrics)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"PersonaGym is not at {SHARED}")
def test_published_persona_scores_are_means_of_the_tasks_but_for_one():
    """As printed, to two decimals; the row of claude_3_haiku says 3.64 where its mean is 3.84."""
    rows = [json.loads(line) for line in (SHARED / "published_scores.jsonl").open()]
    off = []
    for row in rows:
        run, score = row.pop("run"), row.pop("PersonaScore")
        if abs(sum(row.values()) / 5 - score) > 0.0051:
            off.append(run)
    assert off == ["20240710_claude_3_haiku"]


# Answers


ROW = {"id": "1", "persona": "A nun", "task": "Wit", "question": "Why?", "response": "{persona}"}


def test_answers_come_back_as_they_were_written(tmp_path):
    answers = [Answer(**ROW), Answer(**ROW | {"id": "2", "response": ""})]
    write_rows(tmp_path / "a", (answer._asdict() | {"sample": 0} for answer in answers))
    assert read_answers(tmp_path / "a", ["Wit"]) == answers


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([ROW, ROW], "a.jsonl:2: id '1' is that of line 1 too"),
        ([ROW | {"task": "Toxicity"}], "a.jsonl:1: task 'Toxicity' has no rubric; use .'Wit'."),
        ([ROW | {"response": None}], "a.jsonl:1: field 'response' is None"),
        ([ROW | {"question": " "}], "a.jsonl:1: field 'question' is ' '"),
    ],
)
def test_a_bad_answer_is_named_with_its_line(tmp_path, rows, message):
    write_rows(tmp_path / "a.jsonl", rows)
    with pytest.raises(ValueError, match=message):
        read_answers(tmp_path / "a.jsonl", ["Wit"])


def test_a_missing_file_of_answers_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="no such file; write the policy's answers first"):
        read_answers(tmp_path / "a.jsonl", ["Wit"])


# Fewer questions


QUESTIONS = [
    Question(f"{persona}/{task}/{number}", persona, task, f"{number}?")
    for persona in ("A nun", "A cook", "A king", "A boy")
    for task in ("Toxicity", "Wit")
    for number in (1, 2, 3)
]


def test_light_is_the_first_question_of_each_task():
    kept = light(QUESTIONS)
    assert len(kept) == 4 * 2
    assert all(question.id.endswith("/1") for question in kept)


def test_zero_takes_all():
    assert subsample(QUESTIONS) == QUESTIONS


@given(st.integers(1, 3), st.integers(1, 2), st.integers(0, 50))
def test_samples_are_nested_balanced_and_in_order(personas, per_task, seed):
    small = subsample(QUESTIONS, personas, per_task, seed)
    assert len(small) == personas * 2 * per_task
    assert small == [question for question in QUESTIONS if question in small]
    assert set(small) <= set(subsample(QUESTIONS, personas + 1, per_task, seed))
    assert set(small) <= set(subsample(QUESTIONS, personas, per_task + 1, seed))


def test_a_sample_is_a_function_of_seed_and_texts_alone():
    shuffled = random.Random(0).sample(QUESTIONS, len(QUESTIONS))
    assert set(subsample(shuffled, 2, 1, seed=3)) == set(subsample(QUESTIONS, 2, 1, seed=3))


def test_seeds_differ_and_all_personas_are_drawn():
    drawn = [subsample(QUESTIONS, 1, 1, seed)[0].persona for seed in range(60)]
    assert set(drawn) == {"A nun", "A cook", "A king", "A boy"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"personas": 5}, r"personas is 5: give 0 \(all\) to 4"),
        ({"personas": -1}, "personas is -1"),
        ({"per_task": 4}, r"per_task for .* is 4: give 0 \(all\) to 3"),
    ],
)
def test_a_number_that_is_not_there_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        subsample(QUESTIONS, **arguments)

import json
from pathlib import Path

import pytest

from permix_jax.personagym.benchmark import load_benchmark

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "personagym"
RUBRIC = "Rate.\n{score_example}\n{persona}\n{question}\n{response}"
PROMPTS = [
    {"path": "prompts/rubric_grading/sys_prompt.txt", "text": "You are a judge."},
    {"path": "prompts/score_examples/prompt.txt", "text": "{persona} {question} {rubric}"},
]


def write(folder, questions, rubrics=None, prompts=None):
    rubrics = rubrics or [{"task": "Toxicity", "rubric": RUBRIC}]
    for name, rows in {
        "benchmark_v1.jsonl": questions,
        "rubrics.jsonl": rubrics,
        "prompts.jsonl": prompts or PROMPTS,
    }.items():
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))


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
        ([], r"benchmark_v1.jsonl: the file is empty"),
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
        ({"rubrics": [{"task": "Toxicity", "rubric": "no slots"}]}, r"rubrics.jsonl:1: .*0 times"),
        (
            {"rubrics": [{"task": "Toxicity", "rubric": RUBRIC + "{persona}"}]},
            r"rubrics.jsonl:1: .*2 times {persona}",
        ),
        ({"rubrics": [{"task": "Toxicity", "rubric": RUBRIC}] * 2}, r"rubrics.jsonl:2: task"),
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

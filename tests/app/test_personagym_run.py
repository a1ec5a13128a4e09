"""launch/personagym.py from a folder of a tiny random model, or a run's checkpoint, to scores."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time

import pytest
from commands import executed, refused
from judge_server import BENCHMARK, HANG, TASKS, chat_server, grade, judge_at
from random_model import write_model
from runs import (
    FULL,
    GRADED_BATCH,
    ROOT,
    load_config,
    needs_full_device,
    own_process,
    strike,
)

from permix_jax.app.personagym_run import personagym
from permix_jax.app.policies import Subject, subject_of_model, subject_of_run
from permix_jax.core.files import write_rows
from permix_jax.core.stop import Stopped
from permix_jax.evaluation.graded_rows import GradedRows
from permix_jax.personagym.judges import JudgeError
from permix_jax.train.checkpoints import Checkpoints

PERSONAS = ("A pirate", "A nun")
CONTEXT = 512


@pytest.fixture(scope="module")
def files(tmp_path_factory, mesh):
    """A random model, a run that "trained" it to other weights, and a benchmark of two questions
    for each of two personas' five tasks."""
    folder = tmp_path_factory.mktemp("personagym")
    (folder / "benchmark").mkdir()
    for seed, name in enumerate(("model", "trained")):
        params = write_model(folder / name, seed, CONTEXT)
    config = load_config("permix.py", "tiny", model__source=str(folder / "model"), sft__steps=0)
    record = {"config": json.loads(config.to_json()), "base": str(folder / "base")}
    checkpoints = Checkpoints(folder / "run/checkpoints")
    checkpoints.save(3, params)
    checkpoints.close()
    (folder / "run/config.json").write_text(json.dumps(record))
    rows = [{"persona": p} | {task: [f"{task}?", "Why?"] for task in TASKS} for p in PERSONAS]
    write_rows(folder / "benchmark/benchmark_v1.jsonl", rows)
    rubrics = [{"task": task, "rubric": BENCHMARK.rubrics[task]} for task in TASKS]
    write_rows(folder / "benchmark/rubrics.jsonl", rubrics)
    texts = {
        "prompts/rubric_grading/sys_prompt.txt": BENCHMARK.system_prompt,
        "prompts/score_examples/prompt.txt": BENCHMARK.example_prompt,
    }
    prompts = [{"path": path, "text": text} for path, text in texts.items()]
    write_rows(folder / "benchmark/prompts.jsonl", prompts)
    return folder


@pytest.fixture(autouse=True)
def use_cache(files, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(files / "cache"))


def asked_of(files):
    return {
        "personagym.folder": str(files / "benchmark"),
        "personagym.max_new_tokens": 8,
        "personagym.batch_size": 4,
        "personagym.candidates": 2,
    }


def config(files, **fields):
    return load_config("permix.py", "tiny", **{**asked_of(files), **fields})


@pytest.fixture
def ask(files):
    """Asks the model, or another one of `files`, with these fields."""

    def asked(out, model="model", **fields):
        return personagym(subject_of_model(config(files, **fields), str(files / model), out))

    return asked


@pytest.fixture
def judged_by(tmp_path):
    """The field that names these judges."""

    def field(*judges):
        write_rows(tmp_path / "judges.jsonl", judges)
        return {"personagym.judges": str(tmp_path / "judges.jsonl")}

    return field


SCRIPT, CONFIG = "launch/personagym.py", f"--config={ROOT / 'configs/permix.py'}:tiny"


def flags(files, out):
    """The flags for the fields of `config`, the model and the folder."""
    named = [f"--config.{name}={value}" for name, value in asked_of(files).items()]
    return [CONFIG, f"--out={out}", f"--model={files}/model", *named]


@pytest.fixture(scope="module")
def answered(files):
    """The answers of the model's folder, from the command itself."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PERMIX_CACHE", str(files / "cache"))
        said = executed(shlex.join([SCRIPT, *flags(files, files / "out")]))
    assert f"10 answers in {files}/out/answers.jsonl" in said
    assert "PersonaGym without a judge: 10 answers under 2 personas" in said
    assert "judge them with --config.personagym.judges=judges.jsonl" in said
    return files / "out/answers.jsonl"


def test_answers_are_those_to_the_first_question_of_each_task(answered):
    rows = [json.loads(line) for line in answered.read_text().splitlines()]
    assert [(row["id"], row["question"]) for row in rows] == [
        (f"{persona}/{task}/1", f"{task}?") for persona in PERSONAS for task in TASKS
    ]
    assert len({row["response"] for row in rows}) > 5


def test_judge_free_figures_are_those_of_the_likelihoods_on_disk(files, answered):
    """By hand: the share likeliest under the own of two personas, the gain of it a token."""
    figures = json.loads((answered.parent / "judge_free.json").read_text())
    asked = [json.loads(line)["persona"] for line in answered.read_text().splitlines()]
    rows = map(json.loads, (answered.parent / "judge_free/answers.jsonl").read_text().splitlines())
    logp = {(row["response"], row["persona"]): row["logp"] for row in rows}
    other = dict(zip(PERSONAS, PERSONAS[::-1], strict=True))
    assert set(logp) == {(r, p) for r in range(10) for p in (*PERSONAS, None)}
    own = [logp[r, persona] for r, persona in enumerate(asked)]
    hits = [
        x > logp[r, other[persona]] for r, (x, persona) in enumerate(zip(own, asked, strict=True))
    ]
    found, gain = figures["identification"], figures["gain_per_token"]
    assert (found["share"], found["chance"], found["n"]) == (sum(hits) / 10, 0.5, 10)
    gained = sum(x - logp[r, None] for r, x in enumerate(own))
    assert gain["gain"] == pytest.approx(gained / gain["tokens"])
    assert figures["reference"] == str(files / "model") and figures["empty"] == 0
    assert [part["n"] for part in figures["by_task"].values()] == [2] * 5
    at = figures["by_task"]["Toxicity"]["identification"]["share"]
    assert at == sum(hits[asked.index(p) + TASKS.index("Toxicity")] for p in PERSONAS) / 2


def test_ctrl_c_while_answering_and_scoring_ends_in_the_same_files(
    ask, answered, tmp_path, monkeypatch
):
    append, folder = GradedRows.append, tmp_path / "out"

    def interrupted_append(self, rows):
        append(self, rows)
        os.kill(os.getpid(), signal.SIGINT)

    def interrupted():
        with monkeypatch.context() as patch:
            patch.setattr(GradedRows, "append", interrupted_append)
            with pytest.raises(Stopped):
                ask(folder)

    interrupted()
    path, scored = folder / "answers.jsonl", folder / "judge_free/answers.jsonl"
    assert len(path.read_text().splitlines()) == 4
    path.write_text(answered.read_text()[: len(path.read_text()) + 30])  # a line cut in half
    for left in (8, 10):
        interrupted()
        assert len(path.read_text().splitlines()) == left
    interrupted()
    assert len(scored.read_text().splitlines()) == 4
    ask(folder)
    for name in ("answers.jsonl", "judge_free/answers.jsonl", "judge_free.json"):
        assert (folder / name).read_text() == (answered.parent / name).read_text(), name


def test_the_base_and_a_checkpoint_of_a_run_answer_as_their_models(ask, files, answered, tmp_path):
    fields = {"model.source": str(files / "model")}
    personagym(subject_of_run(config(files, **fields), files / "run", 0, tmp_path / "base"))
    assert (tmp_path / "base/answers.jsonl").read_text() == answered.read_text()
    personagym(subject_of_run(config(files, **fields), files / "run", None, tmp_path / "trained"))
    reference = {"eval.judge_free_reference": str(files / "model")}
    ask(tmp_path / "exported", "trained", **reference)
    trained = (tmp_path / "trained/answers.jsonl").read_text()
    assert trained == (tmp_path / "exported/answers.jsonl").read_text() != answered.read_text()
    # One frozen reference, the base, for all of them.
    base, trained, exported, own = (
        (folder / "judge_free.json").read_text()
        for folder in (*(tmp_path / n for n in ("base", "trained", "exported")), answered.parent)
    )
    assert base == own and trained == exported != base


def test_judges_score_finished_answers_without_the_model(ask, judged_by, answered, monkeypatch):
    def refuse(*_):
        raise AssertionError("no model is needed")

    monkeypatch.setattr("permix_jax.app.policies.build_policy", refuse)
    with chat_server(grade) as server:
        judges = [{"name": name, "base_url": server.url, "model": "m"} for name in ("j", "k")]
        named = judged_by(*judges)
        first = ask(answered.parent, **named)
        asked = len(server.asked)
        again = ask(answered.parent, **named)
        assert asked == len(server.asked) == 30  # an example and two judges' scores of 10 answers
    assert first == again
    assert "PersonaScore" in first and "4.000 [4.000, 4.000]" in first and "20 of 20" in first
    summary = json.loads((answered.parent / "summary.json").read_text())
    assert summary["persona_score"] == 4.0 and summary["answers"] == 10


def test_kill_9_while_answering_and_judging_and_the_same_command_again(
    ask, judged_by, files, answered, tmp_path
):
    """Killed after the first batch of answers, and at the eighth judgement."""
    out = tmp_path / "out"

    def reply(prompt, number):
        return grade(prompt) if number <= 7 or server.reopened else HANG

    with chat_server(reply) as server:
        server.reopened = False
        named = judged_by(judge_at(server.url)._asdict())
        args = [*flags(files, out), f"--config.personagym.judges={tmp_path / 'judges.jsonl'}"]
        program = strike(1, "SIGKILL", after=GRADED_BATCH, script=SCRIPT)
        whole, env = [sys.executable, "-c", program, *args], own_process()
        struck = subprocess.run(whole, env=env, capture_output=True, text=True)
        assert struck.returncode == -signal.SIGKILL, struck.stderr
        assert (out / "answers.jsonl").read_bytes().count(b"\n") == 4
        whole = [sys.executable, ROOT / SCRIPT, *args]
        child = subprocess.Popen(whole, env=env, stderr=subprocess.DEVNULL)
        deadline, replies = time.monotonic() + 120, out / "replies.jsonl"
        while not (replies.is_file() and replies.read_bytes().count(b"\n") == 7):
            assert child.poll() is None and time.monotonic() < deadline
            time.sleep(0.05)
        child.kill()
        child.wait()

        server.reopened = True
        assert "PersonaScore" in executed(shlex.join([SCRIPT, *args]))
        assert len(server.answered) == len(set(server.answered)) == 20
        ask(tmp_path / "whole", **named)
    for name in ("judge_free.json", "judge_free/answers.jsonl", "scores.jsonl", "summary.json"):
        assert (out / name).read_text() == (tmp_path / "whole" / name).read_text(), name
    assert (out / "answers.jsonl").read_text() == answered.read_text()


def test_a_model_judges_through_the_rollout_and_is_asked_once(
    ask, judged_by, files, answered, tmp_path, monkeypatch
):
    """A random model's verdicts cannot be read; that is counted, not dropped."""
    judges = {"name": "tiny", "source": str(files / "trained"), "max_tokens": 6, "batch_size": 4}
    fields = judged_by(judges) | {"personagym.examples": False}
    shutil.copytree(answered.parent, tmp_path / "out")
    first = ask(tmp_path / "out", **fields)
    summary = json.loads((tmp_path / "out/summary.json").read_text())
    entry = summary["by_judge"][0]
    assert (entry["asked"], entry["unreadable"], entry["refused"]) == (10, 10, 0)
    assert summary["persona_score"] is None and "0 of 10" in first
    replies = [json.loads(line) for line in (tmp_path / "out/replies.jsonl").open()]
    assert sum(row["judge"] == "tiny" and row["truncated"] for row in replies) == 10

    monkeypatch.setattr("permix_jax.app.personagym_run.named_model", None)  # nothing is left to ask
    assert ask(tmp_path / "out", **fields) == first


@needs_full_device
@pytest.mark.parametrize(
    "file", ["judge_free.json.partial", "replies.jsonl", "scores.jsonl.partial"]
)
def test_a_full_disk_is_named_and_the_same_command_goes_on(
    ask, judged_by, answered, tmp_path, file
):
    out = tmp_path / "out"
    shutil.copytree(answered.parent, out)
    for name in ("judge_free.json", "replies.jsonl", "scores.jsonl", "summary.json"):
        (out / name).unlink(missing_ok=True)
    (out / file).symlink_to(FULL)
    with chat_server(grade) as server:
        named = judged_by(judge_at(server.url)._asdict())
        with pytest.raises(OSError, match="No space left on device; what is finished is kept, run"):
            ask(out, **named)
        (out / file).unlink()
        assert "PersonaScore" in ask(out, **named)
        # What comes while replies cannot be kept is asked again; nothing else is.
        assert len(server.asked) > 20 if file == "replies.jsonl" else len(server.asked) == 20
    assert (out / "answers.jsonl").read_text() == answered.read_text()


def test_ctrl_c_while_judging_is_a_stop(ask, judged_by, answered, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("permix_jax.app.personagym_run.judge", interrupt)
    with pytest.raises(Stopped):
        ask(answered.parent, **judged_by({"name": "j", "base_url": "http://x", "model": "m"}))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 1}, r"another evaluation \(config.seed: 1 instead of 0\); name another --out"),
        ({"personagym.top_p": 0.5}, "config.personagym.top_p: 0.5 instead of 0.9"),
        ({"personagym.personas": 1, "personagym.candidates": 0}, "questions_sha256"),
        ({"personagym.personas": 1}, "candidates is 2; 1 personas are asked, use 2 to that many"),
        ({"personagym.candidates": 1}, r"personagym.candidates is 1; use 0 \(off\), or 2"),
        ({"eval.judge_free_reference": "x"}, r"\(reference: 'x' inst.*; remove .*free.json"),
        ({"personagym.personas": 3}, r"personagym.personas is 3: give 0 \(all\) to 2"),
        ({"personagym.top_p": 0.0}, "personagym.top_p is 0.0; use a share above 0"),
        ({"personagym.judges": "nowhere"}, "nowhere: no such file; write one judge a line"),
        ({"personagym.folder": "nowhere"}, "nowhere/rubrics.jsonl: no such file"),
    ],
)
def test_mistakes_are_named_in_one_line(ask, answered, fields, message):
    before = answered.read_bytes()
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        ask(answered.parent, **fields)
    assert "\n" not in str(raised.value)
    assert answered.read_bytes() == before


ENDPOINT = {"base_url": "http://x", "model": "m"}
NO_KEY = ENDPOINT | {"key_variable": "NO_SUCH_KEY"}


@pytest.mark.parametrize(
    ("judge", "fields", "message"),
    [
        ({"source": "no"}, {}, "^judge 'j': no: no such folder"),
        (NO_KEY, {}, "^judge 'j': the environment variable NO_SUCH_KEY is not set"),
        (ENDPOINT, {"eval.judge_free_reference": "no"}, "is 'no'"),
    ],
)
def test_what_is_to_score_is_looked_at_before_anything_is_answered(
    ask, judged_by, tmp_path, judge, fields, message
):
    with pytest.raises((JudgeError, ValueError), match=message):
        ask(tmp_path / "out", **judged_by({"name": "j", **judge}), **fields)
    assert not (tmp_path / "out/answers.jsonl").exists()


def test_answers_longer_than_the_context_are_refused(ask, tmp_path):
    with pytest.raises(ValueError, match=f"max_new_tokens is 500; .* context of {CONTEXT}; lower"):
        ask(tmp_path / "out", **{"personagym.max_new_tokens": 500})
    assert not (tmp_path / "out").exists()


def test_the_embedded_world_is_refused(files, tmp_path):
    with pytest.raises(ValueError, match="the embedded world's policy lacks the words"):
        personagym(Subject(config(files), tmp_path, tmp_path, 0, tmp_path, {}, "base"))


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ("", "name --out=DIR"),
        ("--out=x --model=y --step=2", "leave out --workdir and --step"),
        ("--out=x --workdir=z", "z/config.json: no such file; name the workdir of a run"),
    ],
)
def test_mistakes_of_the_command_line_end_in_one_line(args, message):
    assert message in refused(f"{SCRIPT} {CONFIG} {args}")


def test_a_judge_that_cannot_be_asked_ends_in_one_line(judged_by, files, answered):
    ((field, judges),) = judged_by({"name": "n", **NO_KEY}).items()
    args = [SCRIPT, *flags(files, answered.parent), f"--config.{field}={judges}"]
    message = "error: judge 'n': the environment variable NO_SUCH_KEY is not set"
    assert refused(shlex.join(args)).startswith(message)

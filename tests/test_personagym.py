"""launch/personagym.py from a folder of a tiny random model, or a run's checkpoint, to scores."""

import json
import subprocess
import sys

import pytest
from chat_templates import FAMILIES, write_tokenizer
from judge_server import BENCHMARK, TASKS, chat_server, grade
from runs import ROOT, load_config

from permix_jax.checkpoints import Checkpoints
from permix_jax.evaluation.graded_rows import GradedRows
from permix_jax.evaluation.personagym import answering
from permix_jax.models.config import ModelConfig
from permix_jax.models.huggingface import config_to_hf, params_to_hf
from permix_jax.models.params import create_params
from permix_jax.models.transformer import Decoder
from permix_jax.models.weights import write_weights
from permix_jax.personagym import personagym_of_model, personagym_of_run
from permix_jax.randomness import key
from permix_jax.tasks.latent_style import build_tokenizer
from permix_jax.training.stop import Stopped

PERSONAS = ("A pirate", "A nun")
CONTEXT = 512


def write_lines(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_model(folder, mesh, seed, size):
    decoder = Decoder(ModelConfig(size, 16, 1, 2, 1, 8, 24, max_context=CONTEXT))
    (folder / "config.json").write_text(json.dumps(config_to_hf(decoder.config)))
    params = create_params(decoder, key(seed, "init"), mesh)
    write_weights(folder, params_to_hf(decoder.config, params))
    return params


@pytest.fixture(scope="module")
def files(tmp_path_factory, mesh):
    """A random model, a run that "trained" it to other weights, and a benchmark of two questions
    for each of two personas' five tasks."""
    folder = tmp_path_factory.mktemp("personagym")
    for name in ("model", "trained", "benchmark"):
        (folder / name).mkdir()
    for seed, name in enumerate(("model", "trained")):
        params = write_model(
            folder / name, mesh, seed, write_tokenizer(folder / name, FAMILIES["smollm2"])
        )
    config = load_config("permix.py", "tiny", model__source=str(folder / "model"), sft__steps=0)
    record = {"config": json.loads(config.to_json()), "base": str(folder / "base")}
    checkpoints = Checkpoints(folder / "run/checkpoints")
    checkpoints.save(3, params)
    checkpoints.close()
    (folder / "run/config.json").write_text(json.dumps(record))
    rows = [{"persona": p} | {task: [f"{task}?", "Why?"] for task in TASKS} for p in PERSONAS]
    write_lines(folder / "benchmark/benchmark_v1.jsonl", rows)
    rubrics = [{"task": task, "rubric": BENCHMARK.rubrics[task]} for task in TASKS]
    write_lines(folder / "benchmark/rubrics.jsonl", rubrics)
    texts = {
        "prompts/rubric_grading/sys_prompt.txt": BENCHMARK.system_prompt,
        "prompts/score_examples/prompt.txt": BENCHMARK.example_prompt,
    }
    prompts = [{"path": path, "text": text} for path, text in texts.items()]
    write_lines(folder / "benchmark/prompts.jsonl", prompts)
    return folder


@pytest.fixture(autouse=True)
def use_cache(files, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(files / "cache"))


@pytest.fixture
def config(files):
    def with_fields(**fields):
        named = {
            "personagym__folder": str(files / "benchmark"),
            "personagym__max_new_tokens": 8,
            "personagym__batch_size": 4,
            "personagym__candidates": 2,
        }
        return load_config("permix.py", "tiny", **{**named, **fields})

    return with_fields


def command(*args, cwd):
    head = [sys.executable, str(ROOT / "launch/personagym.py")]
    config = f"--config={ROOT / 'configs/permix.py'}:tiny"
    return subprocess.run([*head, config, *args], cwd=cwd, capture_output=True, text=True)


def flags(files):
    """Those of `config`, and the model's."""
    fields = {"folder": files / "benchmark", "max_new_tokens": 8}
    fields |= {"batch_size": 4, "candidates": 2}
    named = [f"--config.personagym.{name}={value}" for name, value in fields.items()]
    return ["--out=out", f"--model={files}/model", *named]


@pytest.fixture(scope="module")
def answered(files):
    """The answers of the model's folder, from the command itself."""
    done = command(*flags(files), cwd=files)
    assert done.returncode == 0, done.stderr
    assert "10 answers in out/answers.jsonl" in done.stdout
    assert "judge them with --config.personagym.judges=judges.jsonl" in done.stdout
    return files / "out/answers.jsonl"


def test_answers_are_those_to_the_first_question_of_each_task(answered):
    rows = [json.loads(line) for line in answered.read_text().splitlines()]
    assert [(row["id"], row["question"]) for row in rows] == [
        (f"{persona}/{task}/1", f"{task}?") for persona in PERSONAS for task in TASKS
    ]
    assert len({row["response"] for row in rows}) > 5


def test_the_persona_is_the_system_message_in_the_benchmark_s_words(files):
    (prompt,) = answering._prompts(_Recorder(), BENCHMARK.questions[:1])
    assert prompt == [
        {
            "role": "system",
            "content": "Adopt the identity of A pirate. Answer the questions while staying in "
            "strict accordance with the nature of this identity.",
        },
        {"role": "user", "content": BENCHMARK.questions[0].question},
    ]


class _Recorder:
    """A tokenizer whose tokens are the messages."""

    unk_token_id = None

    def apply_chat_template(self, conversations, **_):
        return conversations


def test_an_interrupted_answering_ends_in_the_same_file(
    config, files, answered, tmp_path, monkeypatch
):
    append, folder = GradedRows.append, tmp_path / "out"

    def striking_append(self, rows):
        append(self, rows)
        raise OSError("struck")

    with monkeypatch.context() as patch:
        patch.setattr(GradedRows, "append", striking_append)
        with pytest.raises(OSError, match="struck"):
            personagym_of_model(config(), str(files / "model"), folder)
    path = folder / "answers.jsonl"
    assert len(path.read_text().splitlines()) == 4
    path.write_text(answered.read_text()[: len(path.read_text()) + 30])  # a line cut in half
    personagym_of_model(config(), str(files / "model"), folder)
    assert path.read_text() == answered.read_text()


def test_the_base_and_a_checkpoint_of_a_run_answer_as_their_models(
    config, files, answered, tmp_path
):
    fields = {"model__source": str(files / "model")}
    personagym_of_run(config(**fields), files / "run", 0, tmp_path / "base")
    assert (tmp_path / "base/answers.jsonl").read_text() == answered.read_text()
    personagym_of_run(config(**fields), files / "run", None, tmp_path / "trained")
    personagym_of_model(config(), str(files / "trained"), tmp_path / "exported")
    trained = (tmp_path / "trained/answers.jsonl").read_text()
    assert trained == (tmp_path / "exported/answers.jsonl").read_text() != answered.read_text()


def test_judges_score_finished_answers_without_the_model(
    config, files, answered, tmp_path, monkeypatch
):
    def refuse(*_):
        raise AssertionError("no model is needed")

    monkeypatch.setattr("permix_jax.personagym.build_policy", refuse)
    with chat_server(grade) as server:
        judges = [{"name": name, "base_url": server.url, "model": "m"} for name in ("j", "k")]
        write_lines(tmp_path / "judges.jsonl", judges)
        named = config(personagym__judges=str(tmp_path / "judges.jsonl"))
        first = personagym_of_model(named, str(files / "model"), answered.parent)
        asked = len(server.asked)
        again = personagym_of_model(named, str(files / "model"), answered.parent)
        assert asked == len(server.asked) == 30  # an example and two judges' scores of 10 answers
    assert first == again
    assert "PersonaScore" in first and "4.000 [4.000, 4.000]" in first and "20 of 20" in first
    summary = json.loads((answered.parent / "summary.json").read_text())
    assert summary["persona_score"] == 4.0 and summary["answers"] == 10


def test_ctrl_c_while_judging_is_a_stop(config, files, answered, tmp_path, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("permix_jax.personagym.judge", interrupt)
    write_lines(tmp_path / "judges.jsonl", [{"name": "j", "base_url": "http://x", "model": "m"}])
    with pytest.raises(Stopped):
        named = config(personagym__judges=str(tmp_path / "judges.jsonl"))
        personagym_of_model(named, str(files / "model"), answered.parent)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seed": 1}, r"another evaluation \(config.seed: 1 instead of 0\); name another --out"),
        ({"personagym__top_p": 0.5}, "config.personagym.top_p: 0.5 instead of 0.9"),
        ({"personagym__personas": 1}, "questions_sha256"),
        ({"personagym__personas": 3}, r"personagym.personas is 3: give 0 \(all\) to 2"),
        ({"personagym__top_p": 0.0}, "personagym.top_p is 0.0; use a share above 0"),
        ({"personagym__judges": "nowhere"}, "nowhere: no such file; write one judge a line"),
        ({"personagym__folder": "nowhere"}, "nowhere/rubrics.jsonl: no such file"),
        ({"mesh__data": 8}, "personagym.batch_size is 4; use a multiple of mesh.data"),
    ],
)
def test_mistakes_are_named_in_one_line(config, files, answered, fields, message):
    before = answered.read_bytes()
    with pytest.raises((ValueError, FileNotFoundError), match=message) as raised:
        personagym_of_model(config(**fields), str(files / "model"), answered.parent)
    assert "\n" not in str(raised.value)
    assert answered.read_bytes() == before


def test_answers_longer_than_the_context_are_refused(config, files, tmp_path):
    with pytest.raises(ValueError, match=f"max_new_tokens is 500; .* context of {CONTEXT}; lower"):
        fields = {"personagym__max_new_tokens": 500}
        personagym_of_model(config(**fields), str(files / "model"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_embedded_world_is_refused(config, tmp_path):
    with pytest.raises(ValueError, match="the embedded world's policy lacks the words"):
        personagym_of_run(config(), tmp_path / "run", None, tmp_path / "out")
    with pytest.raises(ValueError, match="does not know .*; use a policy that comes from a"):
        answering._prompts(build_tokenizer(), BENCHMARK.questions)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "name --out=DIR"),
        (["--out=x", "--model=y", "--step=2"], "leave out --workdir and --step"),
        (["--out=x", "--workdir=z"], "the embedded world's policy lacks the words"),
    ],
)
def test_mistakes_of_the_command_line_end_in_one_line(tmp_path, args, message):
    out = command(*args, cwd=tmp_path)
    assert out.returncode == 1
    assert message in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1, out.stderr


def test_a_judge_that_cannot_be_asked_ends_in_one_line(files, answered, tmp_path):
    judge = {"name": "n", "base_url": "http://x", "model": "m", "key_variable": "NO_SUCH_KEY"}
    write_lines(tmp_path / "judges.jsonl", [judge])
    judges = f"--config.personagym.judges={tmp_path / 'judges.jsonl'}"
    out = command(*flags(files), judges, cwd=files)
    assert out.returncode == 1
    assert "error: judge 'n': the environment variable NO_SUCH_KEY is not set" in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1, out.stderr

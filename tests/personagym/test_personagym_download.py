import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

import pytest
from file_server import serve

from permix_jax.core.json_lines import read_rows
from permix_jax.personagym import download as module
from permix_jax.personagym.benchmark import load_benchmark

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "personagym"
PERSONAS = ["A pirate, of LGBTQ+ pride", "A pirate"]
QUESTIONS = {task: [f"Is “{task}” you?"] for task in module._TASKS}
SLOTS = "{score_example}{persona}{question}{response}"


@contextmanager
def home_of(files, fails=()):
    """Serves the texts `files`; of each path in `fails` the first request fails."""
    with serve({path: text.encode() for path, text in files.items()}, fails) as server:
        yield server.home, server.asked


def upstream():
    """Files laid out as upstream lays them out."""
    files = {f"rubrics/{task}.txt": f"{task}: {SLOTS}" for task in module._TASKS}
    files |= {path: "{persona}{question}{rubric}" for path in module._PROMPTS}
    files["code/personas.py"] = f"import os\nbenchmark_personas = {PERSONAS!r}\n"
    for persona in PERSONAS:
        files[f"questions/benchmark-v1/{persona}.json"] = json.dumps(QUESTIONS, indent=4)
    return files


@pytest.fixture
def known(monkeypatch):
    """The checksums of what `upstream` serves, written out here independently."""
    text = "{persona}{question}{rubric}"
    rows = {
        "benchmark_v1.jsonl": [{"persona": persona} | QUESTIONS for persona in PERSONAS],
        "rubrics.jsonl": [{"task": t, "rubric": f"{t}: {SLOTS}"} for t in module._TASKS],
        "prompts.jsonl": [{"path": path, "text": text} for path in module._PROMPTS],
    }
    for name, content in rows.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in content)
        monkeypatch.setitem(module._SHA256, name, hashlib.sha256(text.encode()).hexdigest())


def test_files_are_joined_and_cached(tmp_path, known):
    with home_of(upstream()) as (home, asked):
        module.download(tmp_path, home)
        assert len(asked) == 5 + 4 + 1 + 2
        module.download(tmp_path, home)
        assert len(asked) == 12
    benchmark = load_benchmark(str(tmp_path), tmp_path)
    assert [question.persona for question in benchmark.questions[::5]] == PERSONAS


def test_a_failed_request_is_sent_again(tmp_path, known):
    waits = []
    with home_of(upstream(), fails=["code/personas.py"]) as (home, asked):
        module.download(tmp_path, home, waits.append)
    assert asked.count("code/personas.py") == 2 and waits == [2.0]


@pytest.mark.parametrize(
    ("path", "text", "error", "message"),
    [
        ("rubrics/Toxicity.txt", "all is well", ValueError, "rubrics.jsonl.*sha256"),
        ("rubrics/Toxicity.txt", None, ConnectionError, "Toxicity.txt.*404"),
        # Upstream's module is read but not run.
        ("code/personas.py", "benchmark_personas = [print('run')]", ValueError,
         "no list benchmark_personas"),
    ],
)  # fmt: skip
def test_a_file_that_is_changed_or_missing_is_named(tmp_path, known, path, text, error, message):
    files = upstream() | {path: text}
    files = {path: text for path, text in files.items() if text is not None}
    with home_of(files) as (home, _), pytest.raises(error, match=message):
        module.download(tmp_path, home)
    assert (tmp_path / "rubrics.jsonl").exists() == path.startswith("code")


def test_a_home_that_is_down_is_named(tmp_path):
    with home_of({}) as (home, _):
        pass
    with pytest.raises(ConnectionError, match="cannot be fetched .*name a local folder"):
        module.download(tmp_path, home, lambda _: None)


@pytest.mark.skipif(not SHARED.is_dir(), reason=f"PersonaGym is not at {SHARED}")
def test_the_published_files_have_the_known_checksums(tmp_path):
    files = {}
    for _, _, row in read_rows(SHARED / "rubrics.jsonl"):
        files[f"rubrics/{row['task']}.txt"] = row["rubric"]
    for _, _, row in read_rows(SHARED / "prompts.jsonl"):
        files[row["path"]] = row["text"]
    personas = []
    for _, _, row in read_rows(SHARED / "benchmark_v1.jsonl.gz"):
        personas.insert(0, row.pop("persona"))
        files[f"questions/benchmark-v1/{personas[0]}.json"] = json.dumps(row, indent=4)
    files["code/personas.py"] = f"benchmark_personas = {personas!r}"
    with home_of(files) as (home, _):
        module.download(tmp_path, home)
    assert len(load_benchmark(str(tmp_path), tmp_path).questions) == 10_000

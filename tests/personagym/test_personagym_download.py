import hashlib
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from permix_jax.core.json_lines import read_rows
from permix_jax.personagym import download as module
from permix_jax.personagym.benchmark import load_benchmark

SHARED = Path(__file__).parents[2].parent / "shared" / "data" / "personagym"
PERSONAS = ["A pirate, of LGBTQ+ pride", "A pirate"]


@contextmanager
def home_of(files, fails=()):
    """Serves `files`; of each path in `fails` the first request fails."""
    asked, failing = [], set(fails)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802
            path = unquote(self.path).lstrip("/")
            asked.append(path)
            known = path in files and path not in failing
            self.send_response(200 if known else 503 if path in failing else 404)
            failing.discard(path)
            content = files[path].encode() if known else b""
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()


def upstream():
    """Files laid out as upstream lays them out."""
    slots = "{score_example}{persona}{question}{response}"
    files = {f"rubrics/{task}.txt": f"{task}: {slots}" for task in module._TASKS}
    files |= {path: "{persona}{question}{rubric}" for path in module._PROMPTS}
    files["code/personas.py"] = f"import os\nbenchmark_personas = {PERSONAS!r}\n"
    for persona in PERSONAS:
        questions = {task: [f"Is “{task}” you?"] for task in module._TASKS}
        files[f"questions/benchmark-v1/{persona}.json"] = json.dumps(questions, indent=4)
    return files


@pytest.fixture
def known(monkeypatch):
    """The checksums of what `upstream` serves, written out here independently."""
    questions = {task: [f"Is “{task}” you?"] for task in module._TASKS}
    slots = "{score_example}{persona}{question}{response}"
    rows = {
        "benchmark_v1.jsonl": [{"persona": persona} | questions for persona in PERSONAS],
        "rubrics.jsonl": [{"task": t, "rubric": f"{t}: {slots}"} for t in module._TASKS],
        "prompts.jsonl": [
            {"path": path, "text": "{persona}{question}{rubric}"} for path in module._PROMPTS
        ],
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


def test_a_changed_file_is_not_taken(tmp_path, known):
    files = upstream() | {"rubrics/Toxicity.txt": "all is well"}
    with home_of(files) as (home, _), pytest.raises(ValueError, match="rubrics.jsonl.*sha256"):
        module.download(tmp_path, home)
    assert not (tmp_path / "rubrics.jsonl").exists()


def test_a_missing_file_is_named(tmp_path, known):
    files = upstream()
    del files["rubrics/Toxicity.txt"]
    with home_of(files) as (home, _), pytest.raises(ConnectionError, match="Toxicity.txt.*404"):
        module.download(tmp_path, home)


def test_a_home_that_is_down_is_named(tmp_path):
    with home_of({}) as (home, _):
        pass
    with pytest.raises(ConnectionError, match="cannot be fetched .*name a local folder"):
        module.download(tmp_path, home, lambda _: None)


def test_upstreams_module_is_read_but_not_run(tmp_path, known):
    files = upstream() | {"code/personas.py": "benchmark_personas = [print('run')]"}
    with home_of(files) as (home, _), pytest.raises(ValueError, match="no list benchmark_personas"):
        module.download(tmp_path, home)


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

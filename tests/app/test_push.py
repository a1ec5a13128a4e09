"""An exported folder goes to a local stand-in of the hub's API."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from permix_jax.app.push import push

FILES = {
    "config.json": b"{}",
    "model.safetensors": bytes(range(256)) * 64,
    "README.md": "é".encode(),
}


class _Hub(ThreadingHTTPServer):
    """Keeps what is committed. `refused`: the status and message of every answer, if set."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.home = f"http://127.0.0.1:{self.server_port}"
        self.repositories, self.refused, self.tokens = {}, None, set()


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if self.server.refused or self.path.startswith("/api/models/"):
            return self._answer(*(self.server.refused or (404, {"error": "Not found"})))
        return self._answer(404, {"error": "Not found"})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.tokens.add(self.headers.get("Authorization"))
        if self.server.refused:
            return self._answer(*self.server.refused)
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            there = name in self.server.repositories
            # Newer versions of the hub's package say "visibility", older ones "private".
            private = asked.get("visibility") == "private" or asked.get("private")
            made = self.server.repositories.setdefault(name, {"private": private})
            made.setdefault("files", {})
            url = {"url": f"{self.server.home}/{name}"}
            return self._answer(409 if there else 200, url)
        if self.path == "/api/validate-yaml":  # of the model card's head
            return self._answer(200, {"warnings": [], "errors": []})
        name, _, what = self.path.removeprefix("/api/models/").partition("/main")[0].rpartition("/")
        if what == "preupload":
            files = json.loads(body)["files"]
            rules = {"uploadMode": "regular", "shouldIgnore": False}
            return self._answer(200, {"files": [{"path": f["path"], **rules} for f in files]})
        assert what == "commit", self.path
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                content = base64.b64decode(line["value"]["content"])
                self.server.repositories[name]["files"][line["value"]["path"]] = content
        commit = f"{self.server.home}/{name}/commit/1"
        return self._answer(200, {"success": True, "commitOid": "1" * 40, "commitUrl": commit})

    def _answer(self, status, value):
        body = json.dumps(value).encode()
        self.send_response(status)
        if status >= 400 and "error" in value:
            self.send_header("X-Error-Message", value["error"])
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with _Hub() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture
def folder(tmp_path):
    for name, content in FILES.items():
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_folder_is_sent_as_it_is_and_sent_again(hub, folder):
    assert push(folder, "lab/policy", private=True, endpoint=hub.home) == f"{hub.home}/lab/policy"
    made = hub.repositories["lab/policy"]
    assert made["private"] is True and made["files"] == FILES
    assert hub.tokens == {"Bearer hf_secret"}
    (folder / "config.json").write_bytes(b"[1]")
    push(folder, "lab/policy", endpoint=hub.home)
    assert made["files"] == FILES | {"config.json": b"[1]"}


def test_what_the_hub_refuses_is_told_in_one_line(hub, folder):
    hub.refused = 403, {"error": "You have no rights in lab"}
    with pytest.raises(ValueError) as refused:
        push(folder, "lab/policy", endpoint=hub.home)
    said = str(refused.value)
    assert said.startswith("--push=lab/policy: ") and "\n" not in said
    assert "token that may write there: `hf auth login`" in said
    assert said.endswith(f". {folder} is written: hf upload lab/policy {folder}")


def test_no_hub_and_an_impossible_name(hub, folder):
    with pytest.raises(ValueError, match=r"^--push=a/b/c: .*; name it ORG/NAME\. "):
        push(folder, "a/b/c", endpoint=hub.home)
    with pytest.raises(
        ValueError, match=r"^--push=lab/x: the hub does not answer: [^\n]+ is written"
    ):
        push(folder, "lab/x", endpoint="http://127.0.0.1:1")

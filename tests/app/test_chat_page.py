"""The page of a chat: what its server answers; and the page in a browser, where there is one."""

import json
import re
import shutil
import subprocess
import threading

import pytest
import requests
from gallery import chromium

from permix_jax.app.chat import Answers, CannotAsk
from permix_jax.app.chat_page import serve_chat
from permix_jax.rollout.generate import Answer

HOSTILE = "<img src=x onerror=\"document.title='broken out'\"> & more"


class _Chat:
    """Answers with what it was asked, and with what was said before."""

    def ask(self, persona, message, max_new_tokens, temperature, seed, turns):
        if message == "impossible":
            raise CannotAsk("message is impossible; write another")
        before = [[turn.answers[i].text for turn in turns] for i in (0, 1)]
        said = f"{persona}, {message}, {max_new_tokens}, {temperature}, {seed}"
        return Answers(
            Answer(f"base: {said}, {before[0]}", False), Answer(f"trained: {HOSTILE}", True)
        )


@pytest.fixture(scope="module")
def address():
    with serve_chat(_Chat(), "runs/x", 0, 64) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def _question(**changed):
    question = {"persona": " ", "message": "one", "turns": []}
    return question | {"max_new_tokens": "8", "temperature": "0.5"} | changed


def test_a_question_is_answered_by_both(address):
    turns = [{"message": "zero", "base": "b", "trained": "t"}]
    asked = _question(persona="You are a cook. ", turns=turns)
    reply = requests.post(f"{address}/ask", json=asked)
    said = "base: You are a cook., one, 8, 0.5, 1, ['b']"
    assert reply.json() == {
        "base": {"text": said, "truncated": False},
        "trained": {"text": f"trained: {HOSTILE}", "truncated": True},
    }
    plain = requests.post(f"{address}/ask", json=_question()).json()
    assert plain["base"]["text"].startswith("base: None, one, 8, 0.5, 0, []")


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        (_question(message="impossible"), "message is impossible; write another"),
        (_question(max_new_tokens="many"), "invalid literal for int() with base 10: 'many'"),
        ([1], "list indices must be integers"),
        ({}, "'turns'"),
    ],
)
def test_what_cannot_be_asked_is_answered_by_one_line(address, asked, error):
    reply = requests.post(f"{address}/ask", json=asked)
    assert reply.status_code == 400
    assert reply.json()["error"].startswith(error)


def test_only_its_own_page_may_ask(address):
    """A form of another site can post text, but no JSON."""
    headers = {"Content-Type": "text/plain"}
    reply = requests.post(f"{address}/ask", data=json.dumps(_question()), headers=headers)
    assert (reply.status_code, reply.json()) == (400, {"error": "send JSON to /ask"})
    assert requests.get(f"{address}/other").status_code == 404


def test_a_taken_port_is_named(address):
    port = int(address.rpartition(":")[2])
    with pytest.raises(OSError, match=rf"^--port={port} cannot be used \(.*\); name another$"):
        serve_chat(_Chat(), "runs/x", port, 64)


# ---- in a browser ---------------------------------------------------------------------------


class _Browser:
    """Chromium, led over the WebDriver protocol."""

    def __init__(self, driver: str, options: dict):
        self.url = f"{driver}/session"
        capabilities = {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}
        self.url += "/" + self.call("", {"capabilities": capabilities})["sessionId"]

    def call(self, path: str, values: dict):
        reply = requests.post(f"{self.url}{path}", json=values, timeout=120).json()["value"]
        assert not (isinstance(reply, dict) and "error" in reply), reply
        return reply

    def run(self, script: str, *arguments):
        return self.call("/execute/sync", {"script": script, "args": arguments})

    def type(self, name: str, text: str) -> None:
        found = self.call("/element", {"using": "css selector", "value": f"#{name}"})
        self.call(f"/element/{next(iter(found.values()))}/value", {"text": text})

    def click(self, name: str) -> None:
        found = self.call("/element", {"using": "css selector", "value": f"#{name}"})
        self.call(f"/element/{next(iter(found.values()))}/click", {})

    def wait_for(self, script: str):
        """The value of the script, once there is one."""
        found = f"const found = () => {{ {script} }};"
        look = "const look = () => found() ? done(found()) : requestAnimationFrame(look); look();"
        script = f"const done = arguments[0]; {found} {look}"
        return self.call("/execute/async", {"script": script, "args": []})


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser, driver = chromium(), shutil.which("chromedriver")
    if not (browser and driver):
        pytest.skip("no Chromium with its driver is installed")
    folder = tmp_path_factory.mktemp("browser")
    arguments = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
    arguments += [f"--user-data-dir={folder}", "--disable-background-networking"]
    process = subprocess.Popen([driver, "--port=0"], stdout=subprocess.PIPE, text=True)
    try:
        port = next(filter(None, (re.search(r"port (\d+)\.", line) for line in process.stdout)))[1]
        options = {"binary": browser, "args": arguments}
        made = _Browser(f"http://127.0.0.1:{port}", options)
        yield made
        requests.delete(made.url, timeout=60)
    finally:
        process.terminate()
        process.wait()


def test_a_person_talks_to_both_on_the_page(address, browser):
    browser.call("/url", {"url": f"{address}/"})
    texts = "return [...document.querySelectorAll('.answers > div')].map(x => x.innerText)"

    def ask(message: str, number: int) -> list[str]:
        browser.type("message", message)
        browser.click("ask")
        shown = "return document.querySelectorAll('.turn').length"
        browser.wait_for(f"{shown} === {number} && !document.getElementById('ask').disabled")
        return browser.run(texts)

    base = "base\nbase: None, one, 64, 0.0, 0, []"
    trained = f"trained\ntrained: {HOSTILE} [cut off]"
    assert ask("one", 1) == [base, trained]
    second = ask("two", 2)
    assert second[2] == "base\nbase: None, two, 64, 0.0, 1, ['base: None, one, 64, 0.0, 0, []']"
    assert browser.run("return document.title") == "runs/x · chat"  # what a model wrote is text

    browser.type("persona", "You are a cook.")
    assert ask("three", 1)[0] == "base\nbase: You are a cook., three, 64, 0.0, 0, []"

    browser.type("message", "impossible")
    browser.click("ask")
    error = browser.wait_for("return document.getElementById('error').textContent")
    assert error == "message is impossible; write another"
    assert len(browser.run(texts)) == 2
    browser.click("anew")
    assert browser.run(texts) == []

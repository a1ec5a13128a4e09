"""A small OpenAI-compatible chat server for tests, and a benchmark of two personas."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from permix_jax.personagym.benchmark import Answer, Benchmark, Question
from permix_jax.personagym.judges import Judge

HANG = object()  # says nothing until the server ends
TASKS = ("Action Justification", "Expected Action", "Linguistic Habits", "Persona Consistency",
         "Toxicity")  # fmt: skip
BENCHMARK = Benchmark(
    questions=[
        Question(f"{persona}/{task}/1", persona, task, f"What of {task}?")
        for persona in ("A pirate", "A nun")
        for task in TASKS
    ],
    rubrics={
        task: f"Rate {task}.\n{{score_example}}\n{{persona}}\n{{question}}\n<{{response}}>\nForm:"
        for task in TASKS
    },
    system_prompt="You are a fair judge.",
    example_prompt="Give examples.\n{persona}\n{question}\n{rubric}",
)
ANSWERS = [
    Answer(*question, response=f"As {question.persona}, number {number}.")
    for number, question in enumerate(BENCHMARK.questions)
]
EXAMPLES = "\n".join(f"Score {score}: Response - such as this" for score in range(1, 6))


class Failure:
    """An HTTP answer, other than the completion that a text becomes."""

    def __init__(self, status: int, body: str = '{"error": {"message": "no"}}', **headers: str):
        self.status, self.body = status, body
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}


class Server(ThreadingHTTPServer):
    """`asked` and `answered` hold the user's turns, `bodies` the requests, as they came."""

    daemon_threads = True

    def __init__(self, reply: Callable[[str, int], object]):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply, self.lock, self.ended = reply, threading.Lock(), threading.Event()
        self.asked, self.answered, self.bodies, self.keys = [], [], [], []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_) -> None:
        """A client that has gone is no news."""


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt, server = body["messages"][-1]["content"], self.server
        with server.lock:
            server.asked.append(prompt)
            server.bodies.append(body)
            server.keys.append(self.headers["authorization"])
            number = len(server.asked)
        answer = server.reply(prompt, number)
        if answer is HANG:
            server.ended.wait(60)
            return
        if not (failed := isinstance(answer, Failure)):
            text, finish = answer if isinstance(answer, tuple) else (answer, "stop")
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "message": message, "finish_reason": finish}
            completion = {"id": "1", "object": "chat.completion", "created": 1, "model": "m"}
            answer = Failure(200, json.dumps(completion | {"choices": [choice]}))
        content = answer.body.encode()
        self.send_response(answer.status)
        length = {"content-length": str(len(content))}
        for name, value in ({"content-type": "application/json"} | answer.headers | length).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        with server.lock:
            server.answered += [] if failed else [prompt]

    def log_message(self, *_) -> None:
        """Not on the tests' output."""


@contextmanager
def chat_server(reply: Callable[[str, int], object]) -> Iterator[Server]:
    """Serves `reply(user's turn, number of the request from 1)`.

    It returns a text, (text, finish reason), a Failure, or HANG.
    """
    with Server(reply) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.ended.set()
            server.shutdown()


def grade(prompt: str, _number: int = 0) -> str:
    """A judge's reply: examples where it is asked for them, else a 4."""
    return EXAMPLES if prompt.startswith("Give examples.") else "Therefore, the final score is 4."


def judge_at(url: str, name: str = "j", **fields) -> Judge:
    """A judge of two threads that sends nothing twice, with a time limit for tests."""
    return Judge(name, url, "m", **({"concurrency": 2, "timeout": 5.0, "max_retries": 0} | fields))

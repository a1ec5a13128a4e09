"""A web page on which a person talks to both policies of a run, side by side."""

import json
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from permix_jax.app.chat import Answers, Chat, Turn
from permix_jax.app.templates import render
from permix_jax.rollout.generate import Answer

_HOST = "127.0.0.1"  # only this machine: a page that asks a model costs time, and has no password
_LONGEST = 1 << 20  # bytes of a question with its conversation


def serve_chat(chat: Chat, title: str, port: int, max_new_tokens: int) -> ThreadingHTTPServer:
    """A server of the page at this machine's `port`, 0: any free one; `serve_forever` runs it.

    The page keeps the conversation, so the server has no state. One question is answered after the
    other. Raises OSError, in one line, where the port is taken.
    """
    page = render("chat.html.jinja", title=title, max_new_tokens=max_new_tokens).encode()
    one_at_a_time = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            if self.path != "/":
                return self._send(HTTPStatus.NOT_FOUND, b"there is one page, /", "text/plain")
            return self._send(HTTPStatus.OK, page, "text/html; charset=utf-8")

        def do_POST(self):
            # Another site's page cannot send this type without being allowed to.
            if self.headers.get_content_type() != "application/json" or self.path != "/ask":
                return self._json(HTTPStatus.BAD_REQUEST, {"error": "send JSON to /ask"})
            length = int(self.headers.get("Content-Length", 0))
            if length > _LONGEST:
                return self._json(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": "the conversation is too long"}
                )
            try:
                asked = json.loads(self.rfile.read(length))
                with one_at_a_time:
                    said = _answered(chat, asked)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                return self._json(HTTPStatus.BAD_REQUEST, {"error": str(error)})
            return self._json(HTTPStatus.OK, said)

        def _json(self, status: HTTPStatus, value: Any) -> None:
            self._send(status, json.dumps(value).encode(), "application/json")

        def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """A terminal line for each request would say nothing to a person."""

    try:
        return ThreadingHTTPServer((_HOST, port), Handler)
    except OSError as error:
        raise OSError(f"--port={port} cannot be used ({error.strerror}); name another") from error


def _answered(chat: Chat, asked: dict[str, Any]) -> dict[str, Any]:
    """The answers to a question of the page, as JSON; raises as `Chat.ask`, or for another form."""
    turns = [
        Turn(turn["message"], Answers(Answer(turn["base"], False), Answer(turn["trained"], False)))
        for turn in asked["turns"]
    ]
    answers = chat.ask(
        asked["persona"].strip() or None,
        asked["message"],
        max_new_tokens=int(asked["max_new_tokens"]),
        temperature=float(asked["temperature"]),
        seed=len(turns),
        turns=turns,
    )
    named = zip(answers._fields, answers, strict=True)
    return {name: answer._asdict() for name, answer in named}

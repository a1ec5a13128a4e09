"""A local HTTP server in place of the public homes of files."""

import threading
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

import pytest


class FileServer(ThreadingHTTPServer):
    """`files`: path -> content; `asked`: the paths asked for, in order; `failing`: those of which
    the first request fails."""

    def __init__(self, files, failing):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files, self.asked, self.failing = files, [], set(failing)
        self.home = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        server, path = self.server, unquote(self.path).lstrip("/")
        server.asked.append(path)
        content, status = server.files.get(path, b""), 200 if path in server.files else 404
        if path in server.failing:
            server.failing.discard(path)
            content, status = b"", 503
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with suppress(ConnectionError):  # who only asks whether it is there hangs up
            self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def serve(files, failing=()):
    with FileServer(files, failing) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("NO_PROXY", "127.0.0.1")
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield server
        finally:
            server.shutdown()

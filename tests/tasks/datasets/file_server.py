"""A local HTTP server in place of the data sets' public homes."""

import http.server
import threading
from contextlib import contextmanager, suppress


class FileServer:
    """`files`: path -> content; `asked`: the paths asked for, in order."""

    def __init__(self, port, files, asked):
        self.files, self.asked = files, asked
        self._root = f"http://127.0.0.1:{port}"

    def url(self, path):
        return f"{self._root}/{path}"


@contextmanager
def serve(files):
    asked = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            path = self.path.lstrip("/")
            asked.append(path)
            content = files.get(path)
            self.send_response(404 if content is None else 200)
            self.send_header("Content-Length", str(len(content or b"")))
            self.end_headers()
            with suppress(ConnectionError):  # who only asks whether it is there hangs up
                self.wfile.write(content or b"")

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield FileServer(server.server_address[1], files, asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

"""An S3 server on this machine whose answers can be slow, or errors, or not come for a while."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


class Unsteady:
    """A WSGI application around moto's.

    Every `fails_every`-th request gets a server error, every `slow_every`-th an answer that is
    late. While `away`, all get errors. 0: none does.
    """

    def __init__(self, application, fails_every: int = 0, slow_every: int = 0):
        self._application, self.requests, self.away = application, 0, False
        self.fails_every, self.slow_every = fails_every, slow_every
        self._lock = threading.Lock()

    def __call__(self, environ, start_response):
        with self._lock:
            self.requests += 1
            number = self.requests
        if self.slow_every and number % self.slow_every == 0:
            time.sleep(0.2)
        if self.away or self.fails_every and number % self.fails_every == 0:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            start_response("500 Internal Server Error", [("Content-Type", "text/xml")])
            return [b"<Error><Code>InternalError</Code><Message>try again</Message></Error>"]
        return self._application(environ, start_response)


@contextmanager
def s3_server(*buckets: str, **faults: int) -> Iterator[tuple[Unsteady, dict[str, str]]]:
    """A server with these buckets, and the environment in which it is the S3 of a process.

    Skips the test where moto or s3fs is not installed.
    """
    reason = "needs moto[server] and s3fs: pip install 'permix_jax[s3]' 'moto[server]'"
    moto_server = pytest.importorskip("moto.server", reason=reason)
    s3fs = pytest.importorskip("s3fs", reason=reason)
    from werkzeug.serving import make_server

    application = moto_server.DomainDispatcherApplication(moto_server.create_backend_app)
    unsteady = Unsteady(application)
    server = make_server("127.0.0.1", 0, unsteady, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    try:
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            files = s3fs.S3FileSystem(skip_instance_cache=True)
            for bucket in buckets:
                files.mkdir(bucket)
            unsteady.__dict__.update(faults)
            yield unsteady, environment
    finally:
        server.shutdown()
        thread.join()

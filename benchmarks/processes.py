"""The implementations' environments, and the processes that run in them."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

ADAPTERS = Path(__file__).parent / "peers"


def make_environment(folder: Path, requirements: Sequence[str]) -> str:
    """The Python of a virtual environment with these packages: that in `folder`, or made there.

    Without requirements, the Python that is running. Raises RuntimeError where pip fails.
    """
    if not requirements:
        return sys.executable
    python, installed = folder / "bin/python", folder / "installed.json"
    if not installed.exists() or json.loads(installed.read_text()) != list(requirements):
        print(f"installing {', '.join(requirements)} into {folder}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        pip = [python, "-m", "pip", "install", "--quiet", *requirements]
        if subprocess.run(pip).returncode:
            raise RuntimeError(
                f"pip cannot install {', '.join(requirements)}; leave it out with --only"
            )
        installed.write_text(json.dumps(requirements))
    return str(python)


class Process:
    """An adapter in its environment, which works when it is asked and waits otherwise."""

    def __init__(self, adapter: str, python: str):
        self._name = adapter
        self._log = tempfile.TemporaryFile("w+")
        cpu = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        env = {**os.environ, **cpu}
        if python != sys.executable:  # no package of another environment
            env.pop("PYTHONPATH", None)
        self._process = subprocess.Popen(
            [python, str(ADAPTERS / adapter)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=env,
        )

    def ask(self, line: str) -> dict:
        """The answer to a line; RuntimeError, with what it said last, where it died instead."""
        try:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it died while it was waiting: there is no answer to read
        answer = self._process.stdout.readline()
        if not answer:
            code = self._process.wait()
            self._log.seek(0)
            said = "".join(self._log.readlines()[-20:])
            raise RuntimeError(f"{self._name} ended with status {code}:\n{said}")
        return json.loads(answer)

    def close(self) -> None:
        """Ends it, at once."""
        self._process.kill()
        self._process.communicate()
        self._log.close()

"""One run of a comparison, in a process of its own: `python -m permix_jax.reproduction.one_run`.

The first line of its input is a `Job` in JSON. When the input ends, the process that started this
one has ended, and the run stops as by SIGTERM: it saves what is done.
"""

import json
import os
import signal
import sys
import threading
from pathlib import Path

from ml_collections import ConfigDict

from permix_jax.app.experiment import run
from permix_jax.core.distributed import locked
from permix_jax.core.stop import Stopped
from permix_jax.train.loop import NonFiniteError


def main() -> int:
    job = json.loads(sys.stdin.readline())
    threading.Thread(target=_stop_when_input_ends, daemon=True).start()
    workdir = Path(job["workdir"])
    try:
        # A run of a comparison that was killed may still be saving.
        with locked(workdir / ".lock", while_waiting=lambda: None):
            print(run(ConfigDict(job["config"]), workdir, job["name"], job["preset"]))
    except Stopped:
        return 3
    except (ValueError, FileNotFoundError, ImportError, NonFiniteError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _stop_when_input_ends() -> None:
    sys.stdin.read()
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())

"""Trains and evaluates a policy:  python launch/train.py --config=configs/permix.py

--config=FILE:PRESET picks a preset, --config.a.b=value sets one field; see configs/permix.py.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's own chatter at start

from absl import app, flags  # noqa: E402
from absl import logging as absl_logging  # noqa: E402
from ml_collections import config_flags  # noqa: E402

from permix_jax.experiment import run  # noqa: E402
from permix_jax.training.loop import NonFiniteError  # noqa: E402
from permix_jax.training.stop import Stopped  # noqa: E402

_CONFIG = config_flags.DEFINE_config_file("config", None, "FILE or FILE:PRESET")
_WORKDIR = flags.DEFINE_string("workdir", None, "default: runs/<config>-<preset>")


def main(argv: list[str]) -> None:
    if argv[1:]:
        sys.exit(f"error: {argv[1]!r} is not a flag; fields are set as --config.a.b=value")
    file, _, preset = flags.FLAGS["config"].config_filename.partition(":")
    name = Path(file).stem
    workdir = Path(_WORKDIR.value or Path("runs", f"{name}-{preset}" if preset else name))
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells its life at INFO
    try:
        print(run(_CONFIG.value, workdir, name, preset))
    except Stopped:
        print(f"stopped; {workdir} is saved, the same command goes on from there")
        return
    except (ValueError, FileNotFoundError, ImportError, NonFiniteError) as error:
        sys.exit(f"error: {error}")
    print(f"report: {workdir / 'report.html'}")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)

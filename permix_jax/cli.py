"""What the commands in launch/ share: the config flag, the workdir, errors in one line."""

import difflib
import logging
import os
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

# transformers says at import that it misses PyTorch, which nothing here asks of it.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from permix_jax.config import flat_fields
from permix_jax.distributed import initialize, is_main
from permix_jax.evaluation.personagym.judges import JudgeError
from permix_jax.training.loop import NonFiniteError
from permix_jax.training.stop import Stopped

_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE or FILE:PRESET, such as configs/permix.py:tiny"
)
_WORKDIR = flags.DEFINE_string("workdir", None, "default: runs/<config>-<preset>")


def launch(
    job: Callable[[ConfigDict, Path, str, str], None], several_processes: bool = False
) -> None:
    """Runs `job(config, workdir, config name, preset)` with what the command line says.

    Bad input ends the process with one line and status 1; a requested stop, with status 0.

    Args:
      several_processes: whether the job can be done by several together; adds the flags that say
        how they find each other.
    """
    if several_processes:
        _define_process_flags()

    def main(argv: list[str]) -> None:
        if argv[1:]:
            _fail(f"{argv[1]!r} is not a flag; a field is set as --config.a.b=value")
        _quiet_logs()
        file, _, preset = flags.FLAGS["config"].config_filename.partition(":")
        name = Path(file).stem
        workdir = Path(_WORKDIR.value or Path("runs", f"{name}-{preset}" if preset else name))
        try:
            if several_processes:
                initialize(*(flags.FLAGS[name].value for name in _PROCESS_FLAGS))
            if not is_main():
                sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as it runs
                logging.getLogger("permix_jax").setLevel(logging.WARNING)
            job(_CONFIG.value, workdir, name, preset)
        except Stopped:
            print("stopped; what was done is saved, and the same command goes on from there")
        except (ValueError, OSError, ImportError, NonFiniteError, JudgeError) as error:
            _fail(str(error))

    app.run(main, flags_parser=_parse)


def changed_fields() -> list[str]:
    """The fields of the config that the command line gives another value than the preset has."""
    file, _, preset = flags.FLAGS["config"].config_filename.partition(":")
    default = flat_fields(runpy.run_path(file)["get_config"](preset).to_dict())
    chosen = flat_fields(_CONFIG.value.to_dict())
    return [field for field, value in chosen.items() if value != default.get(field)]


_PROCESS_FLAGS = ("coordinator", "processes", "process", "distributed")


def _define_process_flags() -> None:
    several = "several processes, one a host or device, run the same command (docs/scale.md)"
    flags.DEFINE_string("coordinator", None, f"HOST:PORT of process 0, where {several}")
    flags.DEFINE_integer("processes", None, "how many they are", lower_bound=1)
    flags.DEFINE_integer("process", None, "which of them this is", lower_bound=0)
    flags.DEFINE_bool("distributed", False, "JAX is to find the others by itself: TPU slices")


def _parse(argv: list[str]) -> list[str]:
    """absl's parsing, after a check of the config that says more clearly what is wrong with it."""
    if not any(flag.lstrip("-").startswith("help") for flag in argv[1:]):
        _check_config(argv[1:])
    return app.parse_flags_with_usage(argv)


def _check_config(args: list[str]) -> None:
    specs = [arg.partition("=")[2] for arg in args if arg.startswith("--config=")]
    if not specs:
        _fail("name a config: --config=configs/permix.py")
    file, _, preset = specs[-1].partition(":")
    if not Path(file).is_file():
        there = sorted(str(path) for path in Path(file).parent.glob("*.py"))
        _fail(f"--config: there is no file {file}{_nearest(file, there)}")
    try:
        config = runpy.run_path(file).get("get_config", _no_get_config)(preset)
    except (ValueError, KeyError, AttributeError, SyntaxError) as error:
        _fail(f"--config={specs[-1]}: {' '.join(str(error).split())}")
    fields = list(_leaf_fields(config))
    for arg in args:
        field = arg.partition("=")[0].removeprefix("--config.")
        if arg.startswith("--config.") and field not in fields:
            _fail(f"--config.{field}: the config has no such field{_nearest(field, fields)}")


def _no_get_config(_preset: str):
    raise ValueError("the file defines no get_config(preset); see configs/permix.py")


def _leaf_fields(config: ConfigDict, prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            yield from _leaf_fields(value, f"{prefix}{name}.")
        else:
            yield prefix + name


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _quiet_logs() -> None:
    """Our own notes as plain lines; of the libraries, warnings only."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    notes = logging.StreamHandler()
    notes.setFormatter(logging.Formatter("note: %(message)s"))
    logger = logging.getLogger("permix_jax")
    logger.addHandler(notes)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _fail(message: str) -> None:
    sys.exit(f"error: {message}")

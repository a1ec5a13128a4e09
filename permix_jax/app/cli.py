"""What the commands in launch/ share: flags and their help, the workdir, errors in one line.

Help and mistakes are answered before JAX is imported: a command imports its job when it starts.
"""

import argparse
import logging
import os
import re
import runpy
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import NoReturn

# transformers says at import that it misses PyTorch, which nothing here asks of it.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from permix_jax.core.config_fields import FIELDS, SECTIONS
from permix_jax.core.field_rules import valid_field
from permix_jax.core.fields import did_you_mean, flat_fields

_OF_RUN = Path(__file__).with_name("config_of_run.py")
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE:PRESET: a file of configs/; the preset is optional"
)


def launch(
    job: Callable[[ConfigDict, Path, str, str], None],
    several_processes: bool = False,
    of_a_run: bool = True,
    config_of_workdir: bool = False,
) -> None:
    """Runs `job(config, workdir, config name, preset)` with what the command line says.

    Bad input ends the process with one line and status 1; a requested stop, with status 0.
    `--help` prints the docstring of the job's module and its flags.

    Args:
      several_processes: whether the job can be done by several together; adds the flags that say
        how they find each other.
      of_a_run: whether `workdir` is for the user to choose; adds the flag.
      config_of_workdir: whether, where a --workdir and no --config is given, the config is that of
        the run there.
    """
    if of_a_run:
        flags.DEFINE_string("workdir", None, "DIR: a run's folder; default: runs/<config>-<preset>")
    if several_processes:
        _define_process_flags()

    def main(_argv: list[str]) -> None:
        from permix_jax.core.stop import Stopped
        from permix_jax.personagym.judges import JudgeError
        from permix_jax.train.loop import NonFiniteError

        _quiet_logs()
        file, preset = _file_and_preset(config_spec())
        name = Path(file).stem
        chosen = flags.FLAGS["workdir"].value if of_a_run else None
        workdir = Path(chosen or Path("runs", f"{name}-{preset}" if preset else name))
        try:
            with _others() if several_processes else nullcontext():
                try:
                    job(_CONFIG.value, workdir, name, preset)
                except Stopped:
                    print(_STOPPED)
        except (ValueError, OSError, ImportError, NonFiniteError, JudgeError) as error:
            fail(str(error))

    about = sys.modules[job.__module__].__doc__
    app.run(main, flags_parser=lambda argv: _parse(argv, about, config_of_workdir))


def config_spec() -> str:
    """FILE or FILE:PRESET, as --config has it."""
    return flags.FLAGS["config"].config_filename


def config_arguments() -> list[str]:
    """The arguments that make the config, to be used in another command: --config, unless it is
    that of the workdir, and the fields."""
    fields = flags.FLAGS["config"].override_values
    changed = [f"--config.{name}={value}" for name, value in fields.items()]
    named = [] if config_spec().startswith(f"{_OF_RUN}:") else [f"--config={config_spec()}"]
    return [*named, *changed]


def changed_fields() -> list[str]:
    """The fields of the config that the command line gives another value than the preset has."""
    default = flat_fields(_run_config_file(config_spec()).to_dict())
    chosen = flat_fields(_CONFIG.value.to_dict())
    return [field for field, value in chosen.items() if value != default.get(field)]


class Parser(argparse.ArgumentParser):
    """Of a command without a config: `about` and its options as help, mistakes in one line."""

    def __init__(self, about: str):
        shape = argparse.RawDescriptionHelpFormatter
        super().__init__(description=about, formatter_class=shape, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        known = [name for name in self._option_string_actions if name.startswith("--")]
        named = [arg.partition("=")[0] for arg in sys.argv[1:] if arg.startswith("--")]
        if wrong := [name for name in named if name not in known]:
            message = f"{wrong[0]}: there is no such option{did_you_mean(wrong[0], known)}"
        fail(f"{message} (--help says more)")


def fail(message: str) -> NoReturn:
    """Ends the process with one line and status 1."""
    sys.exit(f"error: {message}")


_STOPPED = "stopped; what was done is saved, and the same command goes on from there"
_PROCESS_FLAGS = ("coordinator", "processes", "process", "distributed")


def _define_process_flags() -> None:
    flags.DEFINE_string("coordinator", None, "HOST:PORT: address of process 0 (docs/scale.md)")
    flags.DEFINE_integer("processes", None, "N: number of processes", lower_bound=1)
    flags.DEFINE_integer("process", None, "I: number of this process, from 0", lower_bound=0)
    flags.DEFINE_bool("distributed", False, "let JAX find the other processes (TPU slices)")


@contextmanager
def _others() -> Iterator[None]:
    """Within, this process works with the others, if there are any; the main one speaks for all."""
    from permix_jax.core.distributed import initialize, is_main, watched
    from permix_jax.core.sharding import ask_for_determinism

    names = ("silent_seconds", "wait_seconds")
    bounds = [valid_field(_CONFIG.value, f"distributed.{name}") for name in names]
    if valid_field(_CONFIG.value, "mesh.deterministic"):  # before JAX counts the processes
        ask_for_determinism()
    initialize(*(flags.FLAGS[name].value for name in _PROCESS_FLAGS), bounds[0])
    with watched(*bounds):
        if not is_main():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as it runs
            logging.getLogger("permix_jax").setLevel(logging.WARNING)
        yield


# ---- parsing -------------------------------------------------------------------------------------


def _parse(argv: list[str], about: str, config_of_workdir: bool) -> list[str]:
    """absl's parsing, after checks that say more clearly what is wrong."""
    args = _joined(argv[1:])
    if config_of_workdir:
        args = [*_config_of_workdir(args), *args]
    if asked := [arg.partition("=")[2] for arg in args if re.match("--?help=", arg)]:
        print(_help_on_fields(asked[0]))
        sys.exit(0)
    if any(re.fullmatch("--?(help|h)", arg) for arg in args):
        print(_help(about))
        sys.exit(0)
    if not any(re.match("--?help", arg) for arg in args):
        _check(args, config_of_workdir)
    try:
        rest = flags.FLAGS([argv[0], *args])[1:]
    except flags.Error as error:
        fail(_about_value(" ".join(str(error).split()), _spec(args)))
    if rest:
        fail(f"{rest[0]!r} is not a flag; a field is set as --config.a.b=value")
    return [argv[0]]


def _joined(args: Sequence[str]) -> list[str]:
    """`-config X` and `--config X` as `--config=X`, and --workdir likewise."""
    joined: list[str] = []
    for arg in args:
        if joined and (found := re.fullmatch("--?(config|workdir)", joined[-1])):
            joined[-1] = f"--{found[1]}={arg}"
        else:
            joined.append(re.sub("^-(config|workdir)=", r"--\1=", arg))
    return joined


def _config_of_workdir(args: Sequence[str]) -> list[str]:
    """--config of the run in the --workdir, where the latter is given and the former is not."""
    workdirs = [arg.partition("=")[2] for arg in args if arg.startswith("--workdir=")]
    if not workdirs or _spec(args):
        return []
    return [f"--config={_OF_RUN}:{workdirs[-1]}"]


def _spec(args: Sequence[str]) -> str:
    """The value of --config, "" where there is none."""
    return next((a.partition("=")[2] for a in reversed(args) if a.startswith("--config=")), "")


def _check(args: Sequence[str], config_of_workdir: bool) -> None:
    spec = _spec(args)
    fields = list(flat_fields(_run_config_file(spec).to_dict())) if spec else []
    for arg in args:
        if found := re.match(r"--?([a-zA-Z_][\w.]*)", arg):
            _check_flag(found[1], fields)
    if not spec:
        files = [arg for arg in args if not arg.startswith("-") and ".py" in arg]
        file = files[0] if files else "configs/permix.py"
        run = ", or the --workdir of a run" if config_of_workdir else ""
        fail(f"name a config: --config={file}{run} (--help says more)")


def _check_flag(name: str, fields: Sequence[str]) -> None:
    field = re.sub(r"^(no)?config\.", "", name)
    if field != name:
        if fields and field not in fields:
            fail(f"--{name}: the config has no such field{did_you_mean(field, fields)}")
    elif not {name, name.removeprefix("no")} & set(flags.FLAGS):
        known = ["config", *_own_flags(), *(f"config.{field}" for field in fields)]
        near = did_you_mean(f"--{name}", [f"--{flag}" for flag in known])
        fail(f"--{name}: there is no such flag{near} (--help says more)")


def _run_config_file(spec: str) -> ConfigDict:
    """The config of FILE:PRESET; ends the process where there is none."""
    file, preset = _file_and_preset(spec)
    if not Path(file).is_file():
        folders = {Path(file).parent, Path("configs")}
        there = sorted(str(path) for folder in folders for path in folder.glob("*.py"))
        fail(f"--config: there is no file {file or repr(file)}{did_you_mean(file, there)}")
    try:
        return runpy.run_path(file).get("get_config", _no_get_config)(preset)
    except (ValueError, KeyError, AttributeError, NameError, SyntaxError, OSError) as error:
        about = "" if Path(file) == _OF_RUN else f"--config={spec}: "
        fail(f"{about}{' '.join(str(error).split())}")


def _file_and_preset(spec: str) -> tuple[str, str]:
    file, _, preset = spec.partition(":")
    return file, preset


def _no_get_config(_preset: str):
    raise ValueError("the file defines no get_config(preset); see configs/permix.py")


def _about_value(message: str, spec: str) -> str:
    """absl's message, in other words where a field of the config got a value of another type."""
    found = re.match(r"flag --config\.([\w.]+)=(.*?): ", message)
    if not found:
        return message
    field, value = found.groups()
    default = flat_fields(_run_config_file(spec).to_dict())[field]
    return f"{field} is {value!r}; use a value of type {type(default).__name__}, such as {default}"


# ---- help ----------------------------------------------------------------------------------------


def _help(about: str) -> str:
    rows = [_help_row(flags.FLAGS[name]) for name in ("config", *_own_flags())]
    rows.insert(1, ("--config.SECTION.FIELD=VALUE", "sets a field; docs/config.md has them all"))
    rows += [
        ("--help=SECTION", "shows the fields of a section"),
        ("--helpfull", "shows the flags of libraries"),
    ]
    width = max(len(flag) for flag, _ in rows)
    lines = [f"  {flag:{width}}  {text}".rstrip() for flag, text in rows]
    sections = _paragraph("Sections:", filter(None, SECTIONS))
    return "\n".join([about.strip(), "", "Flags:", *lines, *sections, *_presets()])


def _help_on_fields(asked: str) -> str:
    """What is declared of the fields of a section, or of a single field."""
    chosen = [name for name in FIELDS if asked in (name, name.partition(".")[0])]
    if not chosen:
        near = did_you_mean(asked, [*SECTIONS, *FIELDS])
        fail(f"--help={asked}: there is no such section or field{near}")
    lines = []
    for name in chosen:
        field, values = FIELDS[name], FIELDS[name].rule.in_words()
        meaning = field.meaning.removesuffix(":")
        lines.append(f"  --config.{name}={field.default}")
        lines.append(f"      {meaning} ({values})" if values else f"      {meaning}")
    return "\n".join(lines)


def _own_flags() -> list[str]:
    """Those of the command and of this module but --config."""
    modules = flags.FLAGS.flags_by_module_dict()
    own = [flag.name for name in (sys.argv[0], __name__) for flag in modules.get(name, [])]
    return [name for name in own if name != "config" and not name.startswith("config.")]


def _help_row(flag: flags.Flag) -> tuple[str, str]:
    """The help of a flag with a value begins with what stands for the value."""
    if flag.boolean:
        return f"--{flag.name}", flag.help
    value, _, text = flag.help.partition(": ")
    default = "" if flag.default is None else f"; default: {flag.default}"
    return f"--{flag.name}={value}", text + default


def _presets() -> list[str]:
    file = Path(sys.argv[0]).absolute().parent.parent / "configs" / "permix.py"
    if not file.is_file():
        return []
    names = filter(None, runpy.run_path(str(file))["PRESETS"])
    return _paragraph("Presets (of permix.py, rlvr.py, sft.py, distill.py, reproduce.py):", names)


def _paragraph(title: str, names: Iterable[str]) -> list[str]:
    return ["", title, textwrap.indent(textwrap.fill(", ".join(names), width=90), "  ")]


class _Notes(logging.Formatter):
    """Lines that begin with what they are."""

    def format(self, record: logging.LogRecord) -> str:
        kind = "warning" if record.levelno >= logging.WARNING else "note"
        return f"{kind}: {super().format(record)}"


def _quiet_logs() -> None:
    """Our own notes as plain lines; of the libraries, warnings only."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    notes = logging.StreamHandler()
    notes.setFormatter(_Notes())
    logger = logging.getLogger("permix_jax")
    logger.addHandler(notes)
    logger.setLevel(logging.INFO)
    logger.propagate = False

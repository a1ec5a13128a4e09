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
from typing import Any, NoReturn

# transformers warns at import that PyTorch is missing; nothing here needs it.
os.environ.setdefault("TRANSFORMERS_NO_ADVISORY_WARNINGS", "1")

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import ConfigDict, config_flags

from permix_jax.core.config_fields import FIELDS, GONE, SECTIONS
from permix_jax.core.field_rules import valid_field
from permix_jax.core.fields import did_you_mean, flat_fields
from permix_jax.core.places import place_of

STOPPED = 130  # the exit status after Ctrl-C or SIGTERM, as shells have it: not all is done
_CONFIG_OF_RUN = Path(__file__).with_name("config_of_run.py")
_CONFIG = config_flags.DEFINE_config_file(
    "config", None, "FILE:PRESET: a file of configs/; the preset is optional"
)


def launch(
    job: Callable[[ConfigDict, Path, str, str], None],
    several_processes: bool = False,
    of_a_run: bool = True,
    config_of: str = "",
) -> None:
    """Runs `job(config, workdir, config name, preset)` with the values of the command line.

    Bad input ends the process with one line and status 1; a requested stop, with status 0.
    `--help` prints the docstring of the job's module and its flags.

    several_processes: several processes can share the job; adds the flags that connect them.
    of_a_run: the user may choose the workdir; adds the flag --workdir.
    config_of: a flag with the workdir of a run. Without --config, the config is that run's.
    """
    if of_a_run:
        flags.DEFINE_string("workdir", None, "DIR: a run's folder; default: runs/<config>-<preset>")
    if several_processes:
        flags.DEFINE_string("coordinator", None, "HOST:PORT: address of process 0 (docs/scale.md)")
        flags.DEFINE_integer("processes", None, "N: number of processes", lower_bound=1)
        flags.DEFINE_integer("process", None, "I: number of this process, from 0", lower_bound=0)
        flags.DEFINE_bool("distributed", False, "let JAX find the other processes (TPU slices)")

    def main(_argv: list[str]) -> None:
        from permix_jax.core.stop import Stopped
        from permix_jax.personagym.judges import JudgeError
        from permix_jax.train.loop import NonFiniteError

        _quiet_logs()
        file, _, preset = _config_spec().partition(":")
        name = Path(file).stem
        chosen = flags.FLAGS["workdir"].value if of_a_run else None
        stopped = "stopped; what was done is saved, and the same command goes on from there"
        try:
            workdir = place_of(chosen or Path("runs", f"{name}-{preset}" if preset else name))
            with _other_processes() if several_processes else nullcontext():
                try:
                    job(_CONFIG.value, workdir, name, preset)
                except Stopped:
                    print(stopped)
                    sys.exit(STOPPED)
        except (ValueError, OSError, ImportError, NonFiniteError, JudgeError) as error:
            fail(str(error))

    about = sys.modules[job.__module__].__doc__
    app.run(main, flags_parser=lambda argv: _parse(argv, about, config_of))


def config_arguments() -> list[str]:
    """The arguments with which another command gets this config: the changed fields, and --config
    where that is not the config of the workdir."""
    fields = flags.FLAGS["config"].override_values
    changed = [f"--config.{name}={value}" for name, value in fields.items()]
    spec = _config_spec()
    return changed if spec.startswith(f"{_CONFIG_OF_RUN}:") else [f"--config={spec}", *changed]


def set_field(field: str, value: Any) -> None:
    """Sets a field as --config.FIELD=VALUE would have, for a flag that is another name of it."""
    _CONFIG.value.update_from_flattened_dict({field: value})
    flags.FLAGS["config"].override_values[field] = value


def changed_fields() -> list[str]:
    """The fields of the config to which the command line gives another value than the preset."""
    default = flat_fields(_read_config(_config_spec()).to_dict())
    chosen = flat_fields(_CONFIG.value.to_dict())
    return [field for field, value in chosen.items() if value != default.get(field)]


def step_named(text: str | None) -> int | str | None:
    """The value of --step: a number, "best", or None. Raises ValueError for anything else."""
    if text in (None, "best"):
        return text
    if not text.isdecimal():
        raise ValueError(f"--step is {text!r}; use the number of a checkpoint, or best")
    return int(text)


class Parser(argparse.ArgumentParser):
    """For a command without a config: `about` and its options as help, mistakes in one line."""

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


@contextmanager
def _other_processes() -> Iterator[None]:
    """Connects this process with the others, if there are any. Only the main one prints."""
    from permix_jax.core.distributed import initialize, is_main, watched
    from permix_jax.core.sharding import ask_for_determinism

    fields = ("distributed.silent_seconds", "distributed.wait_seconds", "mesh.deterministic")
    *bounds, deterministic = (valid_field(_CONFIG.value, field) for field in fields)
    if deterministic:  # before JAX counts the processes
        ask_for_determinism()
    own = ("coordinator", "processes", "process", "distributed")
    initialize(*(flags.FLAGS[name].value for name in own), bounds[0])
    with watched(*bounds):
        if not is_main():
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as it runs
            logging.getLogger("permix_jax").setLevel(logging.WARNING)
        yield


def _quiet_logs() -> None:
    """Shows the package's own notes as plain lines, and only warnings of libraries."""
    absl_logging.set_verbosity(absl_logging.WARNING)
    # Orbax says at every save that processes which save apart log no sizes.
    logging.getLogger("absl").addFilter(lambda said: "primary_host=None" not in said.getMessage())
    logging.addLevelName(logging.INFO, "note")
    logging.addLevelName(logging.WARNING, "warning")
    notes = logging.StreamHandler()
    notes.setFormatter(logging.Formatter("%(levelname)s: %(message)s"))
    logger = logging.getLogger("permix_jax")
    logger.addHandler(notes)
    logger.setLevel(logging.INFO)
    logger.propagate = False


def _parse(argv: list[str], about: str, config_of: str) -> list[str]:
    """absl's parsing, after checks whose messages are clearer than absl's."""
    args = _joined(argv[1:])
    spec, workdir = (_value(args, name) for name in ("config", config_of))
    if workdir and not spec:
        spec = f"{_CONFIG_OF_RUN}:{workdir}"
        args.insert(0, f"--config={spec}")
    if asked := [arg for arg in args if re.match("--?h(elp)?(=|$)", arg)]:
        section = asked[0].partition("=")[2]
        print(_help_on_fields(section) if section else _help(about))
        sys.exit(0)
    if not any(re.match("--?help", arg) for arg in args):
        _check(args, spec, config_of)
    try:
        rest = flags.FLAGS([argv[0], *args])[1:]
    except flags.Error as error:
        fail(_about_value(" ".join(str(error).split()), spec))
    if rest:
        fail(f"{rest[0]!r} is not a flag; a field is set as --config.a.b=value")
    return [argv[0]]


def _joined(args: Sequence[str]) -> list[str]:
    """The arguments with `-config X` and `--config X` as `--config=X`; --workdir, --from
    and --compare likewise."""
    joined: list[str] = []
    for arg in args:
        if joined and (found := re.fullmatch("--?(config|workdir|from|compare)", joined[-1])):
            joined[-1] = f"--{found[1]}={arg}"
        else:
            joined.append(re.sub("^-(config|workdir|from|compare)=", r"--\1=", arg))
    return joined


def _value(args: Sequence[str], flag: str) -> str:
    """The last value of a flag; "" where it is not given."""
    given = [arg.partition("=")[2] for arg in args if arg.startswith(f"--{flag}=")]
    return given[-1] if given else ""


def _check(args: Sequence[str], spec: str, config_of: str) -> None:
    """Refuses unknown flags and fields, with the nearest known one, and a missing config."""
    fields = list(flat_fields(_read_config(spec).to_dict())) if spec else []
    known = ["config", *_own_flags(), *(f"config.{field}" for field in fields)]
    for found in filter(None, (re.match(r"--?([a-zA-Z_][\w.]*)", arg) for arg in args)):
        name = found[1]
        field = re.sub(r"^(no)?config\.", "", name)
        if field != name:
            if fields and field in GONE:
                fail(f"--{name}: there is no such field any more, for {GONE[field]}; leave it out")
            if fields and field not in fields:
                fail(f"--{name}: the config has no such field{did_you_mean(field, fields)}")
        elif not {name, name.removeprefix("no")} & set(flags.FLAGS):
            near = did_you_mean(f"--{name}", [f"--{flag}" for flag in known])
            fail(f"--{name}: there is no such flag{near} (--help says more)")
    if not spec:
        files = [arg for arg in args if not arg.startswith("-") and ".py" in arg]
        run = f", or the --{config_of} of a run" if config_of == "workdir" else ""
        fail(f"name a config: --config={[*files, 'configs/permix.py'][0]}{run} (--help says more)")


def _config_spec() -> str:
    """The value of --config: FILE or FILE:PRESET."""
    return flags.FLAGS["config"].config_filename


def _read_config(spec: str) -> ConfigDict:
    """The config of FILE:PRESET; ends the process where there is none."""
    file, _, preset = spec.partition(":")
    if not Path(file).is_file():
        folders = {Path(file).parent, Path("configs")}
        there = sorted(str(path) for folder in folders for path in folder.glob("*.py"))
        fail(f"--config: there is no file {file or repr(file)}{did_you_mean(file, there)}")
    try:
        if get_config := runpy.run_path(file).get("get_config"):
            return get_config(preset)
        raise ValueError("the file defines no get_config(preset); see configs/permix.py")
    except (ValueError, KeyError, AttributeError, NameError, SyntaxError, OSError) as error:
        about = "" if Path(file) == _CONFIG_OF_RUN else f"--config={spec}: "
        fail(f"{about}{' '.join(str(error).split())}")


def _about_value(message: str, spec: str) -> str:
    """absl's message, or a clearer one where a field got a value of another type."""
    found = re.match(r"flag --config\.([\w.]+)=(.*?): ", message)
    if not found:
        return message
    field, value = found.groups()
    default = flat_fields(_read_config(spec).to_dict())[field]
    return f"{field} is {value!r}; use a value of type {type(default).__name__}, such as {default}"


def _help(about: str) -> str:
    rows = [_help_row(flags.FLAGS[name]) for name in ("config", *_own_flags())]
    rows.insert(1, ("--config.SECTION.FIELD=VALUE", "sets a field; docs/config.md has them all"))
    rows += [
        ("--help=SECTION", "shows the fields of a section"),
        ("--helpfull", "shows the flags of libraries"),
    ]
    width = max(len(flag) for flag, _ in rows)
    lines = [f"  {flag:{width}}  {text}".rstrip() for flag, text in rows]
    lines += _paragraph("Sections:", filter(None, SECTIONS))
    permix = Path(sys.argv[0]).absolute().parent.parent / "configs" / "permix.py"
    if permix.is_file():
        title = "Presets (of permix.py, rlvr.py, sft.py, distill.py, reproduce.py):"
        lines += _paragraph(title, filter(None, runpy.run_path(str(permix))["PRESETS"]))
    return "\n".join([about.strip(), "", "Flags:", *lines])


def _help_on_fields(asked: str) -> str:
    """The declarations of a section's fields, or of a single field."""
    chosen = [name for name in FIELDS if asked in (name, name.partition(".")[0])]
    if not chosen:
        near = did_you_mean(asked, [*SECTIONS, *FIELDS])
        fail(f"--help={asked}: there is no such section or field{near}")
    lines = []
    for name in chosen:
        default, meaning, rule, *_ = FIELDS[name]
        values = f" ({rule.in_words()})" if rule.in_words() else ""
        lines += [f"  --config.{name}={default}", f"      {meaning.removesuffix(':')}{values}"]
    return "\n".join(lines)


def _own_flags() -> list[str]:
    """The flags of the command and of this module, without --config."""
    modules = flags.FLAGS.flags_by_module_dict()
    own = [flag.name for name in (sys.argv[0], __name__) for flag in modules.get(name, [])]
    return [name for name in own if name != "config" and not name.startswith("config.")]


def _help_row(flag: flags.Flag) -> tuple[str, str]:
    """A flag and its help. The help of a flag with a value begins with "WHAT: "."""
    if flag.boolean:
        return f"--{flag.name}", flag.help
    value, _, text = flag.help.partition(": ")
    default = "" if flag.default is None else f"; default: {flag.default}"
    return f"--{flag.name}={value}", text + default


def _paragraph(title: str, names: Iterable[str]) -> list[str]:
    return ["", title, textwrap.indent(textwrap.fill(", ".join(names), width=90), "  ")]

"""Commands as a user types them, read in this process: their help, mistakes and configs."""

import argparse
import contextlib
import io
import os
import runpy
import shlex
import sys
from unittest import mock

from absl import flags
from runs import ROOT

from permix_jax.app import cli


def answer(command: str, *, help_wanted: bool = False) -> str:
    """What a command of launch/ says at once, to a mistake or to --help, before its job begins."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        try:
            parsed(command)
        except SystemExit as ended:
            if help_wanted:
                assert ended.code in (None, 0), ended.code
                return out.getvalue()
            return ended.code
    raise AssertionError(f"{command} was taken")


def parsed(command: str):
    """The config of `launch/X.py ...` or `benchmarks/X.py ...`, None where it takes none; paths
    are from the repository's root.

    Raises SystemExit with what the command says, if it refuses its arguments.
    """
    parse_args = argparse.ArgumentParser.parse_args

    def taken(_main, flags_parser):
        flags_parser(sys.argv)
        raise _Taken

    def parse(parser, argv=None, namespace=None):
        parse_args(parser, argv, namespace)
        raise _Taken

    with (
        _typed(command, taken) as script,
        mock.patch.object(argparse.ArgumentParser, "parse_args", parse),
    ):
        try:
            runpy.run_path(script, run_name="__main__")
        except _Taken:
            return flags.FLAGS["config"].value
    raise AssertionError(f"{script} parses nothing")


def executed(command: str) -> str:
    """What `launch/X.py ...` prints, run to its end in this process, from the repository's root.

    Raises SystemExit, with what the command says, where it fails or is stopped; its `printed` is
    what was printed until then.
    """
    out = io.StringIO()
    with (
        _typed(command, lambda main, flags_parser: main(flags_parser(sys.argv))) as script,
        mock.patch.object(cli, "_quiet_logs"),
        contextlib.redirect_stdout(out),
    ):
        try:
            runpy.run_path(script, run_name="__main__")
        except SystemExit as ended:
            ended.printed = out.getvalue()
            raise
    return out.getvalue()


def refused(command: str) -> str:
    """The one line with which a command that is run ends, because it fails."""
    try:
        executed(command)
    except SystemExit as ended:
        said = str(ended.code)
        assert said.startswith("error: ") and "\n" not in said
        return said
    raise AssertionError(f"{command} did not fail")


def next_of(said: str) -> list[str]:
    """The commands that a command says to go on with, without `python`."""
    lines = said.partition("next:\n")[2].splitlines()
    return [line.strip().removeprefix("python ") for line in lines if line.strip()]


class _Taken(Exception):
    """The arguments are good; the job would begin."""


@contextlib.contextmanager
def _typed(command: str, run):
    """Within, `command` is what was typed in the repository's root; `run` stands for `app.run`."""
    script, *args = shlex.split(command)
    before, path = set(flags.FLAGS), list(sys.path)
    with (
        mock.patch.dict(os.environ),
        mock.patch.object(sys, "argv", [script, *args]),
        mock.patch.object(cli.app, "run", run),
        contextlib.chdir(ROOT),
    ):
        try:
            yield script
        finally:
            for name in set(flags.FLAGS) - before:
                delattr(flags.FLAGS, name)
            flags.FLAGS["config"].unparse()
            flags.FLAGS.unparse_flags()
            sys.path[:] = path

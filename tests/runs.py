"""Helpers for tests that run the whole job on the shrunk real config."""

import contextlib
import json
import os
import runpy
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from permix_jax.app.experiment import run
from permix_jax.models.config import ModelConfig
from permix_jax.models.policy import Policy, StoredPolicy
from permix_jax.models.transformer import Decoder
from permix_jax.tasks.embedded_world import build_tokenizer
from permix_jax.train.checkpoints import Checkpoints
from permix_jax.train.log import MetricsLog, without_clocks
from permix_jax.train.run import Run

ROOT = Path(__file__).parent.parent
FULL = Path("/dev/full")
needs_full_device = pytest.mark.skipif(
    not (FULL.exists() and stat.S_ISCHR(FULL.stat().st_mode)), reason="no device /dev/full here"
)


def load_config(file: str, preset: str, **fields):
    """The config of `configs/<file>`, with dotted fields set (dots written as __)."""
    config = runpy.run_path(str(ROOT / "configs" / file))["get_config"](preset)
    for name, value in fields.items():
        config.update_from_flattened_dict({name.replace("__", "."): value})
    return config


def run_tiny(workdir: Path, file: str = "permix.py", cache: Path | None = None, **fields) -> Path:
    """Runs the tiny preset of `configs/<file>` with these fields to its end; the workdir.

    `cache` is the cache folder; None: that of the environment, or else `cache` beside the workdir.
    """
    with pytest.MonkeyPatch.context() as patch:
        if cache or "PERMIX_CACHE" not in os.environ:
            patch.setenv("PERMIX_CACHE", str(cache or workdir.parent / "cache"))
        run(load_config(file, "tiny", **fields), workdir, Path(file).stem, "tiny")
    return workdir


def embedded_policy() -> Policy:
    """A decoder of one layer, with the vocabulary of the embedded world."""
    tokenizer = build_tokenizer()
    sizes = {"embed_dim": 16, "num_layers": 1, "num_heads": 2, "num_kv_heads": 1, "head_dim": 8}
    model = Decoder(ModelConfig(vocab_size=len(tokenizer), mlp_dim=16, **sizes))
    return Policy(model, tokenizer, (tokenizer.eos_token_id,))


def run_of(config, task, policy, params, mesh, workdir=Path("unused"), verifier=None) -> Run:
    """A run of values that are there already; without SFT its base is `policy` with `params`."""
    initial = StoredPolicy("initial", policy, mesh, lambda: params)
    return Run(config, workdir, task, policy, initial, workdir / "base", verifier)


def own_process(**variables: str) -> dict[str, str]:
    """The environment of a process that a test starts, with these variables. torch is left out."""
    paths = [str(ROOT / "tests/without_torch"), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **variables}


def train(*args: str, cwd: Path, env: dict[str, str] | None = None, program: str = ""):
    """Runs `launch/train.py`, or a Python program that ends up there, and returns what it said."""
    command = ["-c", program] if program else [str(ROOT / "launch/train.py")]
    return subprocess.run(
        [sys.executable, *command, *args],
        cwd=cwd,
        env=own_process(**env or {}),
        capture_output=True,
        text=True,
        timeout=300,
    )


def metrics(workdir: Path) -> list[dict]:
    """The rows of metrics.jsonl without the figures that a clock made."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return without_clocks(rows)


_STRIKE = """
import importlib, os, runpy, signal, sys
owner = getattr(importlib.import_module({module!r}), {owner!r})
method, calls = owner.{method}, 0
def striking(self, *args):
    global calls
    method(self, *args)
    calls += bool({counted})
    if calls == {call} and {args} <= set(sys.argv):
        {deed}
owner.{method} = striking
sys.argv[0] = {script!r}
runpy.run_path(sys.argv[0], run_name="__main__")
"""
# A row of metrics; of the tiny config, SFT writes 120, then GRPO 6.
METRICS_ROW = "permix_jax.train.log:MetricsLog.write"
GRADED_BATCH = "permix_jax.evaluation.graded_rows:GradedRows.append"


def strike(
    call: int,
    deed: str,
    *args: str,
    after: str = METRICS_ROW,
    counted: str = "True",
    script: str = "launch/train.py",
) -> str:
    """A program that runs as `script` does and, if it has these arguments, does `deed`, a signal's
    name or a statement, right after that call of the method `after` has returned; of the calls,
    those with `args` are counted for which the expression `counted` holds."""
    module, _, name = after.partition(":")
    owner, _, method = name.partition(".")
    return _STRIKE.format(
        module=module,
        owner=owner,
        method=method,
        call=call,
        counted=counted,
        args=set(args) or "set()",
        deed=f"os.kill(os.getpid(), signal.{deed})" if deed.startswith("SIG") else deed,
        script=str(ROOT / script),
    )


@contextlib.contextmanager
def crash_after(step: int, having: str = "step"):
    """Within, a run dies right after the row of `step`, if it has that metric, is written."""
    write = MetricsLog.write

    def crash(self, row):
        write(self, row)
        if row["step"] == step and having in row:
            raise RuntimeError("power cut")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "write", crash)
        with pytest.raises(RuntimeError, match="power cut"):
            yield


def assert_same_run(workdir: Path, other: Path) -> None:
    """Metrics, completions, checkpoints and evaluations are equal, bit for bit."""
    assert metrics(workdir) == metrics(other)
    for pattern in ("completions/*.jsonl", "eval/*/*.*"):
        names = {path.relative_to(workdir) for path in workdir.glob(pattern)}
        assert names and names == {path.relative_to(other) for path in other.glob(pattern)}
        for name in names:
            assert (workdir / name).read_text() == (other / name).read_text(), name
    mine, theirs = (newest_arrays(folder / "checkpoints") for folder in (workdir, other))
    assert len(mine) == len(theirs) > 0
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def newest_arrays(folder: Path, items=("params", "optimizer")) -> list[np.ndarray]:
    """All arrays, parameters and optimiser alike, of the newest checkpoint."""
    import jax
    import orbax.checkpoint as ocp

    checkpoints = Checkpoints(folder)
    step = checkpoints.latest_step()
    checkpoints.close()
    arrays = []
    for item in items:
        with ocp.StandardCheckpointer() as reader:
            arrays += jax.tree.leaves(reader.restore(folder.absolute() / str(step) / item))
    return [np.asarray(x) for x in arrays]

"""Part 4 of benchmarks/accelerator.py: a run that is killed on the device, and goes on.

Two processes, one after the other. The first trains to the end, then again in another folder, where
SIGKILL ends it between two checkpoints. The second goes on with the latter. Both runs should be
equal: metrics and, bit for bit, the state at the end. On a GPU once more with mesh.deterministic.
The process that starts these two opens no device, because one process at a time can hold it.

  python benchmarks/accelerator_resume.py first|second GIVEN FOLDER true|false   is one of them
"""

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp
from accelerator_record import Given, Tell
from accelerator_values import ROOT, arithmetic_config
from ml_collections import ConfigDict

from permix_jax.app.build import build_run
from permix_jax.app.compilation import compiled_programs
from permix_jax.app.workdir import newest_saved_step
from permix_jax.core.sharding import make_mesh
from permix_jax.train.checkpoints import newest_step
from permix_jax.train.grpo import train_grpo
from permix_jax.train.log import read_rows, without_clocks

_STEPS, _KILLED, _EVERY = 6, 5, 3
_WHOLE, _KILLED_RUN, _ANSWER = "whole", "killed", "answer.json"


def measure(given: Given, tell: Tell, start: Callable | None = None) -> None:
    """Tells how far apart the two runs are, by default and with the deterministic flag.

    Without weights the runs are of the tiny preset. `start`: what starts one of the processes.
    """
    start, name = start or in_process, "smollm2_arithmetic" if given.weights else "tiny"
    for deterministic in (False, True) if given.platform == "gpu" else (False,):
        folder = given.scratch / f"resume-{deterministic}"
        what = f"{name}, deterministic" if deterministic else f"{name}, by default"
        start("first", given, folder, deterministic)
        start("second", given, folder, deterministic)
        tell(what, json.loads((folder / _ANSWER).read_text()))


def in_process(stage: str, given: Given, folder: Path, deterministic: bool) -> None:
    """Runs a stage in a process. Raises RuntimeError, with its last words, if it fails."""
    flag = json.dumps(deterministic)
    command = [sys.executable, __file__, stage, given.to_json(), str(folder), flag]
    ended = subprocess.run(command, capture_output=True, text=True)
    killed = -signal.SIGKILL
    if ended.returncode != (killed if stage == "first" else 0):
        said = (ended.stderr.strip().splitlines() or ["it said nothing"])[-1]
        raise RuntimeError(f"the {stage} process ended with status {ended.returncode}: {said}")


# ---- in such a process ---------------------------------------------------------------------------


def main() -> None:
    stage, given, folder, flag = sys.argv[1:]
    config = config_of(Given.from_json(given), json.loads(flag))
    if stage == "first":
        first(config, Path(folder), partial(os.kill, os.getpid(), signal.SIGKILL))
    else:
        second(config, Path(folder))


def config_of(given: Given, deterministic: bool) -> ConfigDict:
    """Six steps. A penalty for length makes rewards differ where no answer is right."""
    fields = {
        "train.steps": _STEPS,
        "train.checkpoint_every": _EVERY,
        "mesh.deterministic": deterministic,
        "rewards.overlong": 0.5,
    }
    if given.weights:
        config = arithmetic_config(given.need_weights(), given.tiny)
    else:
        config = runpy.run_path(str(ROOT / "configs/permix.py"))["get_config"]("tiny")
        fields["sft.steps"] = 0
    config.update_from_flattened_dict(fields)
    config.rewards.overlong_tokens = config.rollout.max_new_tokens // 2
    return config


def first(config: ConfigDict, folder: Path, kill: Callable[[], None]) -> None:
    """Trains to the end, and then anew; calls `kill` after a step that is not saved."""

    def after(step: int) -> None:
        if step == _KILLED:
            while not newest_saved_step(folder / _KILLED_RUN):  # it is saved beside the steps
                time.sleep(0.05)
            kill()

    train(config, folder / _WHOLE)
    train(config, folder / _KILLED_RUN, after)


def second(config: ConfigDict, folder: Path) -> None:
    """Goes on with the killed run, and writes how far it is from the whole one."""
    saved = newest_saved_step(folder / _KILLED_RUN)
    train(config, folder / _KILLED_RUN)
    answer = {"killed_after": _KILLED, "went_on_from": saved}
    answer |= compare(folder / _WHOLE, folder / _KILLED_RUN)
    (folder / _ANSWER).write_text(json.dumps(answer))


def train(config: ConfigDict, workdir: Path, after: Callable[[int], None] = lambda step: None):
    """Trains by GRPO in `workdir`, or goes on there; no evaluation. Calls `after` each step."""
    mesh = make_mesh(**config.mesh)
    with compiled_programs(), jax.set_mesh(mesh):
        run = build_run(config, workdir, mesh)
        with run.verifier, run.stop:
            train_grpo(run, lambda params, step: after(step))


def compare(workdir: Path, other: Path) -> dict[str, bool | int | float | None]:
    """How far apart two runs of the same config are.

    first_step: the first step whose metrics differ, or None. reward: the largest difference.
    entries: share of the numbers of the last state that differ. apart: |x - y| / |x| of all.
    """
    rows, others = (without_clocks(read_rows(x / "metrics.jsonl")) for x in (workdir, other))
    pairs = list(zip(rows, others, strict=True))
    differing = [x["step"] for x, y in pairs if x != y]
    states = zip(last_state(workdir), last_state(other), strict=True)
    found = [(x.size, np.count_nonzero(x != y), _square(x - y), _square(x)) for x, y in states]
    size, entries, apart, whole = map(sum, zip(*found, strict=True))
    return {
        "equal": not differing and not entries,
        "first_step": differing[0] if differing else None,
        "reward": max(abs(x["reward"] - y["reward"]) for x, y in pairs),
        "entries": entries / size,
        "apart": (apart / max(whole, 1e-30)) ** 0.5,
    }


def _square(x: np.ndarray) -> float:
    return float(np.square(x, dtype=np.float64).sum())


def last_state(workdir: Path) -> list[np.ndarray]:
    """The floating-point arrays of the newest checkpoint: parameters, and the optimiser's."""
    folder, arrays = workdir.absolute() / "checkpoints", []
    step = newest_step(folder)
    for item in ("params", "optimizer"):
        with ocp.StandardCheckpointer() as reader:
            arrays += map(np.asarray, jax.tree.leaves(reader.restore(folder / str(step) / item)))
    return [x for x in arrays if np.issubdtype(x.dtype, np.floating)]


if __name__ == "__main__":
    main()

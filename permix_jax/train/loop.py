"""The loop that SFT and GRPO share: update, check, log, checkpoint, stop, resume."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from permix_jax.core.progress import TRAINING, Progress
from permix_jax.core.stop import Stopped, StopRequest
from permix_jax.stats.alarms import Alarms
from permix_jax.train.checkpoints import Checkpoints
from permix_jax.train.log import MetricsLog
from permix_jax.train.state import TrainState

Row = dict[str, float]


class NonFiniteError(RuntimeError):
    """The loss or the gradient of a step was not a finite number."""


@dataclass(frozen=True)
class Loop:
    """How long a loop goes on, what it keeps, and what its progress bar shows.

    label: what the progress bar says. shown: metrics on it: name there -> name in the log.
    folder: gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
    steps: it saves every `checkpoint_every` of them, and keeps the newest `keep_checkpoints`.
    phase: its name in the run's agenda (`core/progress.py`).
    """

    label: str
    folder: Path
    steps: int
    checkpoint_every: int
    keep_checkpoints: int
    shown: dict[str, str]
    phase: str = TRAINING


def fit(
    loop: Loop,
    abstract: TrainState,
    create: Callable[[], TrainState],
    update: Callable[[TrainState, int], tuple[TrainState, Row]],
    stop: StopRequest,
    after_step: Callable[[TrainState, int], None] = lambda state, step: None,
) -> TrainState:
    """Trains to the loop's last step, going on from the newest undamaged checkpoint, if any.

    A step is a pure function of (state, step), so a run that was killed and started again ends
    where the uninterrupted one does.

    Args:
      abstract: ShapeDtypeStructs of the state, with shardings.
      create: makes the first state, only where there is no checkpoint: a resumed run never holds
        two states.
      update: (state, step) -> (new state, metrics). The metrics include `loss` and `grad_norm`.
      after_step: called after each step's row is written. Called again when a run goes on from
        that step, because it may have been interrupted; does nothing if its work is done.

    Raises:
      NonFiniteError: naming the step; checkpoints are left as they were.
      DamagedError, MisfitError: there are checkpoints, and the run cannot go on from them.
      Stopped: a stop was requested; the step in flight is finished and saved.
    """
    checkpoints = Checkpoints(loop.folder / "checkpoints", loop.keep_checkpoints)
    done, state = _restored(checkpoints, abstract) or (0, create())
    log = MetricsLog(loop.folder, done)
    alarms = Alarms(log.found, done)
    try:
        if done:
            after_step(state, done)
        with Progress(loop.label, loop.steps, done, loop.phase) as progress:
            for step in range(done + 1, loop.steps + 1):
                stop.check()
                state, row = update(state, step)
                _require_finite(row, step, checkpoints)
                row = {"step": step, **row}
                for alarm in alarms.see(row):
                    progress.warn(alarm.text)
                log.write(row)
                shown = {name: row[key] for name, key in loop.shown.items() if key in row}
                progress.advance(**shown)
                save = partial(checkpoints.save, step, state.params, _without_params(state))
                saved = step % loop.checkpoint_every == 0 or step == loop.steps or stop.requested
                if saved:
                    save()
                try:
                    after_step(state, step)
                except Stopped:
                    if not saved:
                        save()
                    raise
    finally:
        checkpoints.close()
        log.close()
    if stop.requested:
        raise Stopped
    return state


def _restored(checkpoints: Checkpoints, abstract: TrainState) -> tuple[int, TrainState] | None:
    parts = {"params": abstract.params, "optimizer": _without_params(abstract)}
    if (found := checkpoints.restore(parts)) is None:
        return None
    step, items = found
    return step, TrainState(params=items["params"], **items["optimizer"])


def _without_params(state: TrainState) -> dict:
    others = {"step": state.step, "opt_state": state.opt_state}
    return others | ({"accuracies": state.accuracies} if state.accuracies else {})


def _require_finite(row: Row, step: int, checkpoints: Checkpoints) -> None:
    broken = [name for name in ("loss", "grad_norm") if not math.isfinite(row[name])]
    if broken:
        checkpoints.wait()
        last = checkpoints.latest_step()
        kept = "no checkpoint was written yet" if last is None else f"checkpoint {last} stays"
        raise NonFiniteError(
            f"step {step}: {broken[0]} is {row[broken[0]]}; {kept}; lower the learning rate or "
            "max_grad_norm and start again"
        )

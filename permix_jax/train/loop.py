"""The loop that SFT and GRPO share: update, check, log, checkpoint, stop, resume."""

import math
from collections.abc import Callable
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


def fit(
    label: str,
    folder: Path,
    abstract: TrainState,
    create: Callable[[], TrainState],
    update: Callable[[TrainState, int], tuple[TrainState, Row]],
    *,
    steps: int,
    checkpoint_every: int,
    keep_checkpoints: int,
    shown: dict[str, str],
    stop: StopRequest,
    phase: str = TRAINING,
    after_step: Callable[[TrainState, int], None] = lambda state, step: None,
) -> TrainState:
    """Trains to `steps`, going on from the newest undamaged checkpoint in `folder`, if any.

    A step is a pure function of (state, step), so a run that was killed and started again ends
    where the uninterrupted one does.

    Args:
      folder: gets `checkpoints/`, `metrics.jsonl` and `tensorboard/`.
      abstract: the state as ShapeDtypeStructs with shardings.
      create: makes the state of step 0; called only where there is no checkpoint, so that a run
        that goes on never holds two states.
      update: (state, step) -> (new state, metrics); must hold `loss` and `grad_norm`.
      shown: metrics on the progress bar, by the name they have there.
      phase: of the run's agenda (`progress`).
      after_step: called after each step's row is written, and again where a run goes on from that
        step, for it may have been stopped within; must do nothing where it is done.

    Raises:
      NonFiniteError: naming the step; checkpoints are left as they were.
      DamagedError, MisfitError: there are checkpoints, and the run cannot go on from them.
      Stopped: a stop was requested; the step in flight is finished and saved.
    """
    checkpoints = Checkpoints(folder / "checkpoints", keep_checkpoints)
    state, done = _resume(checkpoints, abstract, create)
    log = MetricsLog(folder, done)
    alarms = Alarms(log.found, done)
    try:
        if done:
            after_step(state, done)
        with Progress(label, steps, done, phase) as progress:
            for step in range(done + 1, steps + 1):
                stop.check()
                state, row = update(state, step)
                _require_finite(row, step, checkpoints)
                row = {"step": step, **row}
                for warned in alarms.see(row):
                    progress.warn(warned.text)
                log.write(row)
                progress.advance(**{name: row[key] for name, key in shown.items() if key in row})
                save = partial(checkpoints.save, step, state.params, _without_params(state))
                due = step % checkpoint_every == 0 or step == steps or stop.requested
                if due:
                    save()
                try:
                    after_step(state, step)
                except Stopped:
                    if not due:
                        save()
                    raise
    finally:
        checkpoints.wait()
        checkpoints.close()
        log.close()
    if stop.requested:
        raise Stopped
    return state


def _resume(
    checkpoints: Checkpoints, abstract: TrainState, create: Callable[[], TrainState]
) -> tuple[TrainState, int]:
    found = checkpoints.restore({"params": abstract.params, "optimizer": _without_params(abstract)})
    if found is None:
        return create(), 0
    step, items = found
    return TrainState(params=items["params"], **items["optimizer"]), step


def _without_params(state: TrainState) -> dict:
    kept = {"step": state.step, "opt_state": state.opt_state}
    return {**kept, "accuracies": state.accuracies} if state.accuracies else kept


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

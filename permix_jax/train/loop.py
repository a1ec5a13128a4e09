"""The loop that SFT and GRPO share: update, check, log, checkpoint, stop, resume."""

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from permix_jax.core.progress import TRAINING, Progress, finish
from permix_jax.core.stop import Stopped, StopRequest
from permix_jax.stats.alarms import Alarms
from permix_jax.train.checkpoints import Checkpoints, Keep
from permix_jax.train.log import MetricsLog
from permix_jax.train.loggers import Loggers
from permix_jax.train.measures import Meter
from permix_jax.train.state import TrainState

Row = dict[str, float]


class NonFiniteError(RuntimeError):
    """The loss or the gradient of a step was not a finite number."""


@dataclass(frozen=True)
class Loop:
    """How long a loop goes on, what it keeps, and what its progress bar shows.

    label: what the progress bar says. shown: metrics on it: name there -> name in the log.
    folder: gets `checkpoints/`, `metrics.jsonl` and, with `tensorboard`, a folder of that name.
    steps: it saves every `checkpoint_every` of them, and keeps the newest `keep_checkpoints`.
    phase: its name in the run's agenda (`core/progress.py`).
    keep_steps: it saves these, too, and keeps them.
    judged_every: it saves every so many steps, too, because one of them may be the best; 0: none.
    profile: the first and the last step whose trace goes to `profile/`; None: no step.
    loggers: services that get the metrics, too.
    """

    label: str
    folder: Path
    steps: int
    checkpoint_every: int
    keep_checkpoints: int
    shown: dict[str, str]
    phase: str = TRAINING
    keep_steps: Collection[int] = ()
    judged_every: int = 0
    profile: tuple[int, int] | None = None
    tensorboard: bool = True
    loggers: Loggers = field(default_factory=Loggers)

    def saves(self, step: int) -> bool:
        """Whether the state after a step is saved, even if nobody asks for a stop."""
        every = [n for n in (self.checkpoint_every, self.judged_every) if n]
        return step == self.steps or step in self.keep_steps or any(step % n == 0 for n in every)


class Verdict(NamedTuple):
    """What a loop learns after a step.

    best: the step whose checkpoint stays until another is the best. ends: there is no next step.
    """

    best: int | None
    ends: bool


AfterStep = Callable[[dict, int], Verdict | None]  # of the policy's parameters and the step


def fit(
    loop: Loop,
    abstract: TrainState,
    create: Callable[[], TrainState],
    update: Callable[[TrainState, int], tuple[TrainState, Row]],
    stop: StopRequest,
    after_step: Callable[[TrainState, int], Verdict | None] = lambda state, step: None,
) -> TrainState:
    """Trains to the loop's last step, going on from the newest undamaged checkpoint, if any.

    Where `after_step` says so, an earlier step is the last one.

    A step is a pure function of (state, step), so a run that was killed and started again ends
    where the uninterrupted one does.

    Args:
      abstract: ShapeDtypeStructs of the state, with shardings.
      create: makes the first state, only where there is no checkpoint: a resumed run never holds
        two states.
      update: (state, step) -> (new state, metrics). The metrics include `loss` and `grad_norm`.
      after_step: called after each step's row is written. Called again when a run goes on from
        that step, because it may have been interrupted; does nothing if its work is done. None:
        the verdict before holds.

    Raises:
      NonFiniteError: naming the step; checkpoints are left as they were.
      DamagedError, MisfitError: there are checkpoints, and the run cannot go on from them.
      Stopped: a stop was requested; the step in flight is finished and saved.
    """
    keep = Keep(loop.keep_checkpoints, loop.keep_steps)
    checkpoints = Checkpoints(loop.folder / "checkpoints", keep)
    done, state = _restored(checkpoints, abstract) or (0, create())
    log = MetricsLog(loop.folder, done, loop.tensorboard, loop.loggers)
    alarms = Alarms(log.found, done)

    def judge(step: int) -> bool:
        """Whether the loop ends after the step."""
        if verdict := after_step(state, step):
            keep.best = verdict.best
        return bool(verdict and verdict.ends)

    def save(step: int) -> None:
        log.flush()  # a checkpoint never knows of more steps than the log
        checkpoints.save(step, state.policy, _without_policy(state))

    try:
        ends = done > 0 and judge(done)
        with (
            Progress(loop.label, loop.steps, done, loop.phase) as progress,
            Meter(loop.folder / "profile", loop.profile) as meter,
        ):
            for step in range(done + 1, loop.steps + 1):
                if ends:
                    break
                stop.check()
                meter.begin(step)
                state, row = update(state, step)
                _require_finite(row, step, checkpoints)
                row = {"step": step, **row, **meter.end(step)}
                for alarm in alarms.see(row):
                    progress.warn(alarm.text)
                log.write(row)
                progress.advance(**{n: row[key] for n, key in loop.shown.items() if key in row})
                if saved := loop.saves(step) or stop.requested:
                    save(step)
                try:
                    ends = judge(step)
                except Stopped:
                    if not saved:
                        save(step)
                    raise
    finally:
        checkpoints.close()
        log.close()
    if stop.requested:
        raise Stopped
    finish(loop.phase)  # also where the last step was an earlier one
    return state


def _restored(checkpoints: Checkpoints, abstract: TrainState) -> tuple[int, TrainState] | None:
    parts = {"params": abstract.policy, "optimizer": _without_policy(abstract)}
    if (found := checkpoints.restore(parts)) is None:
        return None
    step, items = found
    policy, others = items["params"], items["optimizer"]
    if "params" in others:
        return step, TrainState(ema=policy, **others)
    return step, TrainState(params=policy, **others)


def _without_policy(state: TrainState) -> dict:
    """What is saved beside `state.policy`: the parameters, too, where that is an average."""
    others = {"step": state.step, "opt_state": state.opt_state}
    optional = {
        "accuracies": state.accuracies,
        "reference": state.reference,
        "params": state.params if state.ema else {},
    }
    return others | {name: part for name, part in optional.items() if part}


def _require_finite(row: Row, step: int, checkpoints: Checkpoints) -> None:
    broken = [name for name in ("loss", "grad_norm") if not math.isfinite(row[name])]
    if broken:
        checkpoints.wait()
        last = checkpoints.latest_step()
        kept = "no checkpoint was written yet" if last is None else f"checkpoint {last} stays"
        raise NonFiniteError(
            f"step {step}: {broken[0]} is {row[broken[0]]}; {kept}; lower the learning rate "
            "or max_grad_norm, and start again in another --workdir"
        )

"""Which checkpoint of a run is the best by its evaluations, and whether the run ends early."""

from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from permix_jax.core.files import write_json
from permix_jax.evaluation.results import BEST, read_best, read_json
from permix_jax.train.checkpoints import newest_step
from permix_jax.train.loop import Verdict


def judge(config: ConfigDict, workdir: Path, step: int) -> Verdict:
    """Judges a run by its evaluations up to a step, into best.json.

    It is a function of the config and the evaluations. So a run that goes on judges as the
    uninterrupted one does.
    """
    record = judged(config, workdir, step)
    write_json(workdir / BEST, record)
    return Verdict(record["step"], record["stopped_at"] is not None)


def judged(config: ConfigDict, workdir: Path, step: int) -> dict[str, Any]:
    """The content of best.json after a step.

    figure: the field train.keep_best. step, value: of the highest figure, the earliest of equal
    ones; None where no evaluation has one. stopped_at: the step, if the run ends there early.

    The evaluations are those of every `eval.every` steps and of the last step, not that of the
    base, which has no checkpoint.
    """
    t, every, name = config.train, config.eval.every, config.train.keep_best
    steps = [*range(every, min(step, t.steps - 1) + 1, every), *[t.steps] * (step == t.steps)]
    best, value, waited = None, None, 0
    for evaluated in steps:
        path = workdir / "eval" / str(evaluated) / "stability.json"
        found = read_json(path)[name] if path.exists() else None  # PSS may be undefined
        if found is not None and (value is None or found > value):
            best, value, waited = evaluated, found, 0
        else:
            waited += 1
    stops = 0 < t.stop_after <= waited and step % every == 0 and step < t.steps
    return {"figure": name, "step": best, "value": value, "stopped_at": step if stops else None}


def last_step(config: ConfigDict, workdir: Path) -> int:
    """The step at which a run ended early; otherwise train.steps."""
    best = read_best(workdir) if config.train.get("stop_after") else {}
    return best.get("stopped_at") or config.train.steps


def chosen_step(workdir: Path, step: int | str | None) -> int:
    """The step of a checkpoint by its number, "best", or None for the newest.

    Raises FileNotFoundError, in one line, where it is not there.
    """
    if step == "best":
        best = read_best(workdir)
        if best.get("step") is None:
            what = f"no evaluation has a {best['figure']}" if best else "no best is known"
            raise FileNotFoundError(
                f"{workdir}: {what}; name a step, or train with eval.every and train.keep_best"
            )
        step = best["step"]
    return newest_step(workdir / "checkpoints", step)

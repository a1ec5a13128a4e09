"""What the steps of a run on a TPU took, beside what a plan says of them."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from permix_jax.core.files import read_object
from permix_jax.core.json_lines import read_rows
from permix_jax.core.tpus import CHIPS, GIB
from permix_jax.planning.plan import Plan
from permix_jax.report.tables import text_table
from permix_jax.train.programs import rollouts_per_step

_NOTES = """\
Measured: medians over the steps in which no program was compiled; of completion tokens the mean.
Score and update are one time in metrics.jsonl, and the wait for the verifier is part of it. The
plan takes every completion to be of full length. The measured peak is that of all phases so far."""
# Slices that are sold, by their number of chips: of chips with 4 neighbours, and with 6.
_FLAT = ("1x1", "2x2", "2x4", "4x4", "4x8", "8x8", "8x16", "16x16")
_CUBES = ("1x1x1", "2x2x1", "2x2x2", "2x2x4", "2x4x4", "4x4x4", "4x4x8", "4x8x8")
_CHIPS = (1, 4, 8, 16, 32, 64, 128, 256)


class Measured(NamedTuple):
    """Of the steps of a run in which nothing was compiled. None: the run does not tell it."""

    steps: int
    rollout: float  # seconds, as the next two
    update: float  # scoring and update
    step: float
    tokens: float  # of completions in a step
    peak: float | None  # GiB that a chip held at most
    mfu: float | None


def topology_of(workdir: Path, config: ConfigDict, topology: str | None = None) -> str:
    """The slice that a run was on: `topology`, or the usual one of its chips.

    Raises ValueError for a run that was on no TPU that the planner knows, or whose slice is
    unknown; FileNotFoundError without a run.
    """
    record = read_object(workdir / "config.json", "name the workdir of a run")
    device = record.get("device", "an unknown device")
    kind = device.partition(" x ")[2]
    chip = next((name for name, chip in CHIPS.items() if kind in chip.kinds), None)
    if chip is None:
        raise ValueError(
            f"--compare: {workdir} ran on {device}, and plans are for TPUs ({', '.join(CHIPS)}): "
            "there is nothing to compare its times with"
        )
    if topology:
        if topology.partition(":")[0] != chip:
            raise ValueError(f"--topology is {topology!r}, but {workdir} ran on {device} ({chip})")
        return topology
    m = config.mesh
    shapes = dict(zip(_CHIPS, _FLAT if CHIPS[chip].links == 4 else _CUBES, strict=True))
    if (chips := m.data * m.fsdp * m.tensor) not in shapes:
        raise ValueError(f"--compare: {workdir} used {chips} chips; name their slice by --topology")
    return f"{chip}:{shapes[chips]}"


def measured(workdir: Path) -> Measured:
    """Raises ValueError for a run without GRPO steps that compiled nothing; FileNotFoundError
    without metrics."""
    rows = [row for _, _, row in read_rows(workdir / "metrics.jsonl")]
    rows = [row for row in rows if "time/rollout" in row and "time/update" in row]
    warm = [row for row in rows if not row.get("time/compile", row["step"] == 1)]
    if not warm:
        raise ValueError(
            f"--compare: {workdir} has {len(rows)} steps of GRPO, and none without compiling; "
            "compare a run of more steps"
        )
    return Measured(
        len(warm),
        median(row["time/rollout"] for row in warm),
        median(row["time/update"] for row in warm),
        median(row["time/rollout"] + row["time/update"] for row in warm),
        mean(row["tokens/generated"] for row in warm),
        max(_known(warm, "perf/peak_memory_gib"), default=None),
        median(_known(warm, "perf/mfu") or [0.0]) or None,
    )


def _known(rows: Sequence[Mapping[str, Any]], name: str) -> list[float]:
    return [row[name] for row in rows if row.get(name) is not None]


def comparison_report(plan: Plan, config: ConfigDict, found: Measured) -> str:
    """Times, memory and tokens as the plan has them and as they were, and their ratio."""
    programs, rest = plan.programs, [name for name in plan.programs if name != "rollout"]
    uses = [*programs.values(), *plan.phases.values()]
    full = rollouts_per_step(config) * config.rollout.max_new_tokens
    lines = {
        "rollout, s": (*_planned(plan, ["rollout"]), found.rollout),
        f"{' and '.join(rest)}, s": (*_planned(plan, rest), found.update),
        "step, s": (*_planned(plan, list(programs)), found.step),
        "peak, GiB": (None, max(use.peak() for use in uses) / GIB, found.peak),
        "completion tokens": (None, full, found.tokens),
    }
    columns = ["", "at least", "predicted", "measured", "measured / predicted"]
    table = text_table(columns, [[label, *_cells(*line)] for label, line in lines.items()])
    said = f"{plan.topology}: {found.steps} steps"
    if found.mfu is not None:
        said += f"; scoring and update reach {found.mfu:.1%} of the peak (perf/mfu)"
    return "\n".join([table, "", said, "", _NOTES])


def _planned(plan: Plan, names: Sequence[str]) -> tuple[float, float | None]:
    """Seconds of these programs in a step: at least, and predicted if all are."""
    part = plan._replace(programs={name: plan.programs[name] for name in names})
    return part.seconds(), part.predicted()


def _cells(least: float | None, predicted: float | None, found: float | None) -> list[str]:
    ratio = f"{found / predicted:.2f}" if found is not None and predicted else "-"
    return [*("-" if x is None else f"{x:.4g}" for x in (least, predicted, found)), ratio]

"""What differs between a run that suffered faults and one that did not."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from permix_jax.train.log import read_rows, without_clocks


class Place(NamedTuple):
    """Where a run and the SFT that it starts from are."""

    folder: Path

    @property
    def workdir(self) -> Path:
        return self.folder / "run"

    @property
    def cache(self) -> Path:
        return self.folder / "cache"

    @property
    def parts(self) -> dict[str, Path]:
        """The folders with `metrics.jsonl` and `checkpoints/`, by whose they are."""
        bases = [path for path in self.cache.glob("bases/*") if path.is_dir()]
        return {"SFT": bases[0] if bases else self.cache / "bases/none", "GRPO": self.workdir}


def steps(part: Path) -> list[int]:
    """Of the checkpoints whose save is finished, in order."""
    return sorted(int(path.name) for path in part.glob("checkpoints/*") if path.name.isdigit())


def differences(reference: Place, other: Place) -> list[str]:
    """A line for each thing that differs but for clocks, empty where nothing does: metrics, the
    last checkpoint's parameters and optimiser, evaluations, completions and the config."""
    found = []
    for name, part in other.parts.items():
        wanted = reference.parts[name]
        rows = [without_clocks(read_rows(folder / "metrics.jsonl")) for folder in (part, wanted)]
        found += [f"{name} metrics, {line}" for line in row_differences(*rows)]
        last = steps(wanted)[-1]
        if steps(part)[-1:] != [last]:
            found.append(f"{name}: the checkpoints are {steps(part)}, the last must be {last}")
            continue
        arrays = [read_arrays(folder / "checkpoints" / str(last)) for folder in (part, wanted)]
        found += [f"{name} checkpoint {last}, {line}" for line in array_differences(*arrays)]
    found += file_differences(reference.workdir, other.workdir)
    configs = [
        json.loads((each.workdir / "config.json").read_text()) for each in (other, reference)
    ]
    found += [
        f"config.json, {line}" for line in row_differences([configs[0]], [configs[1]], "base")
    ]
    return found


def row_differences(rows: Sequence[Mapping], wanted: Sequence[Mapping], *besides: str) -> list[str]:
    """A line for each row, by its step or number, that has another value; `besides` are fields
    that may differ. NaN equals NaN."""
    found = []
    if len(rows) != len(wanted):
        found.append(f"{len(rows)} rows in place of {len(wanted)}")
    for number, (mine, theirs) in enumerate(zip(rows, wanted, strict=False), start=1):
        where = f"step {theirs['step']}" if "step" in theirs else f"row {number}"
        fields = sorted({*mine, *theirs} - set(besides))
        wrong = [f for f in fields if _text(mine, f) != _text(theirs, f)]
        if wrong:
            pair = f"{_text(mine, wrong[0])} in place of {_text(theirs, wrong[0])}"
            more = f" and {len(wrong) - 1} more fields" if wrong[1:] else ""
            found.append(f"{where}: {wrong[0]} is {pair}{more}")
    return found


def _text(row: Mapping, field: str) -> str:
    return json.dumps(row[field]) if field in row else "absent"


def read_arrays(checkpoint: Path) -> dict[str, np.ndarray]:
    """Path -> array of all that a checkpoint holds, parameters and optimiser alike."""
    found: dict[str, np.ndarray] = {}
    for item in ("params", "optimizer"):
        with ocp.StandardCheckpointer() as reader:
            tree: Any = reader.restore(checkpoint.absolute() / item)
        for path, leaf in jax.tree_util.tree_flatten_with_path(tree)[0]:
            found[f"{item}/{jax.tree_util.keystr(path, simple=True, separator='/')}"] = leaf
    return {path: np.asarray(leaf) for path, leaf in found.items()}


def array_differences(
    arrays: Mapping[str, np.ndarray], wanted: Mapping[str, np.ndarray]
) -> list[str]:
    """A line for each leaf that is not equal bit for bit, or is in one of them alone."""
    found = []
    for path in sorted({*arrays, *wanted}):
        if path not in arrays or path not in wanted:
            found.append(f"{path} is {'missing' if path in wanted else 'one leaf too many'}")
            continue
        mine, theirs = arrays[path], wanted[path]
        if (mine.dtype, mine.shape) != (theirs.dtype, theirs.shape):
            now, then = (f"{x.dtype}{list(x.shape)}" for x in (mine, theirs))
            found.append(f"{path} is {now} in place of {then}")
        elif mine.tobytes() != theirs.tobytes():
            found.append(f"{path} differs")
    return found


def file_differences(wanted: Path, workdir: Path) -> list[str]:
    """A line for each file of evaluations and completions that differs, and for missing reports."""
    found = []
    for pattern in ("completions/*.jsonl", "eval/*/*"):
        names = {
            path.relative_to(root) for root in (wanted, workdir) for path in root.glob(pattern)
        }
        for name in sorted(names):
            mine, theirs = workdir / name, wanted / name
            if not mine.exists() or not theirs.exists():
                found.append(f"{name} is {'missing' if theirs.exists() else 'one file too many'}")
            elif mine.read_bytes() != theirs.read_bytes():
                lines = [path.read_bytes().splitlines() for path in (mine, theirs)]
                same = [a == b for a, b in zip(*lines, strict=False)]
                first = same.index(False) if False in same else len(same)
                found.append(f"{name}, line {first + 1} differs")
    reports = ("report.html", "report.json", "report.md")
    return found + [f"{name} is missing" for name in reports if not (workdir / name).exists()]

"""Reads what a run left in its workdir."""

import json
from dataclasses import dataclass
from pathlib import Path

from permix_jax import files


@dataclass(frozen=True)
class Evaluation:
    """One `eval/<step>` folder; step 0 is the base policy, `fidelity` None without a style rule."""

    step: int
    stability: dict
    fidelity: dict | None


def read_json(path: Path) -> dict:
    """Raises FileNotFoundError or ValueError, each one line with the path."""
    return files.read_json(path, "name the workdir of a run")


def read_jsonl(path: Path) -> list[dict]:
    """One dict a line; a missing file is empty. Raises ValueError with file:line."""
    if not path.is_file():
        return []
    rows = []
    for number, line in enumerate(path.read_text("utf-8").split("\n"), start=1):
        if line.strip():
            try:
                rows.append(json.loads(line))
            except json.JSONDecodeError as error:
                raise ValueError(f"{path}:{number}: not JSON ({error.msg})") from None
    return rows


def read_evaluations(workdir: Path) -> list[Evaluation]:
    """The evaluations of a run, by step. Raises FileNotFoundError if there is none."""
    found = sorted(
        (int(path.parent.name), path)
        for path in workdir.glob("eval/*/stability.json")
        if path.parent.name.isdecimal()
    )
    if not found:
        raise FileNotFoundError(
            f"{workdir}: no evaluation (eval/<step>/stability.json); run launch/train.py to its end"
        )
    return [_read_evaluation(step, path) for step, path in found]


def _read_evaluation(step: int, path: Path) -> Evaluation:
    fidelity = path.with_name("fidelity.json")
    return Evaluation(
        step=step,
        stability=read_json(path),
        fidelity=read_json(fidelity) if fidelity.is_file() else None,
    )

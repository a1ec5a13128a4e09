"""Reads what a run left in its workdir."""

from dataclasses import dataclass
from pathlib import Path

from permix_jax.core import files

BEST = "best.json"


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation: its folder and the contents of its JSON files, None where missing."""

    folder: Path
    stability: dict
    fidelity: dict | None
    judge_free: dict | None

    @property
    def step(self) -> int:
        """The step of an `eval/<step>` folder of a run; 0 is the base policy."""
        return int(self.folder.name)

    def rows(self) -> list[dict]:
        """The rows of completions.jsonl; none if it is missing."""
        return read_jsonl(self.folder / "completions.jsonl")

    def fidelity_of(self, task: str) -> dict:
        """What fidelity.json has of "role_play" or "arithmetic"; empty if it has nothing."""
        return (self.fidelity or {}).get("by_task", {}).get(task, {})


def read_json(path: Path) -> dict:
    """Raises FileNotFoundError or ValueError, each one line with the path."""
    return files.read_json(path, "name the workdir of a run")


def read_best(workdir: Path) -> dict:
    """What best.json says: figure, step, value, stopped_at; {} where the run keeps no best."""
    return read_json(workdir / BEST) if (workdir / BEST).exists() else {}


def read_jsonl(path: Path) -> list[dict]:
    """One dict a line; a missing file is empty. Raises ValueError with file:line."""
    return files.json_rows(path.read_text("utf-8"), path) if path.is_file() else []


def read_evaluations(workdir: Path) -> list[Evaluation]:
    """The evaluations of a run, by step. Raises FileNotFoundError if there is none."""
    evaluations = sorted(
        (int(path.parent.name), path)
        for path in workdir.glob("eval/*/stability.json")
        if path.parent.name.isdecimal()
    )
    if not evaluations:
        raise FileNotFoundError(
            f"{workdir}: no evaluation (eval/<step>/stability.json); run launch/train.py to its end"
        )
    return [read_evaluation(path.parent) for _, path in evaluations]


def read_evaluation(folder: Path) -> Evaluation:
    """Raises FileNotFoundError or ValueError, each one line with the path."""
    stability = read_json(folder / "stability.json")
    fidelity, judge_free = (
        read_json(path) if path.is_file() else None
        for path in (folder / "fidelity.json", folder / "judge_free.json")
    )
    return Evaluation(folder, stability, fidelity, judge_free)

"""A made-up workdir, as a finished run leaves it."""

import json
from pathlib import Path

import numpy as np

from permix_jax.stats.fidelity import rule_fidelity
from permix_jax.stats.stability import stability

PERSONAS = ("pirate", "poet", "child", "$robot$ <b>")
SKILLS = {0: (0.4, 0.5, 0.7, 0.85), 1: (0.82, 0.85, 0.88, 0.9)}


def write_run(
    workdir: Path,
    name: str = "permix",
    preset: str = "",
    seed: int = 0,
    steps: int = 60,
    with_fidelity: bool = True,
    metrics: tuple[str, ...] = ("reward", "kl", "entropy", "completions/mean_length"),
    completion: str = "arr: 7",
) -> Path:
    rng = np.random.default_rng(seed)
    config = {"seed": seed, "train": {"steps": steps}, "grpo": {"kl_weight": 0.05}}
    _write_json(
        workdir / "config.json",
        {"config": config, "name": name, "preset": preset, "git": "0123456789abcdef",
         "versions": {"jax": "0.10.2"}, "device": "cpu"},
    )  # fmt: skip
    rows = [
        {"step": step} | {key: step / steps + rng.normal(0, 0.05) for key in metrics}
        for step in range(1, steps + 1)
    ]
    write_rows(workdir / "metrics.jsonl", rows)
    for step in sorted({0, steps}):
        _write_evaluation(workdir / "eval" / str(step), SKILLS[step > 0], rng, with_fidelity)
        write_rows(workdir / f"eval/{step}/completions.jsonl", _answers(completion))
    return workdir


def write_rows(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def change(path: Path, **fields) -> dict:
    """Sets fields of a JSON file; returns what was there."""
    before = json.loads(path.read_text())
    path.write_text(json.dumps(before | fields))
    return before


def _write_evaluation(folder: Path, skills, rng, with_fidelity: bool) -> None:
    correct = (rng.random((4, 200, 1)) < np.reshape(skills, (4, 1, 1))).astype(float)
    plain = (rng.random((200, 1)) < 0.8).astype(float)
    _write_json(folder / "stability.json", stability(correct, PERSONAS, plain, rng, 200))
    if with_fidelity:
        in_style = {task: rng.random((4, 100, 1)) < 0.85 for task in ("role_play", "arithmetic")}
        _write_json(folder / "fidelity.json", rule_fidelity(in_style, PERSONAS))


def _answers(completion: str) -> list[dict]:
    return [
        {
            "task": task, "problem": f"{task}-{problem}", "persona": persona, "sample": 0,
            "prompt": f"{task} prompt {problem}: 3 + 4 < 8 ?", "completion": completion,
            "answer": "7", "correct": float(problem % 2) if task == "problems" else None,
            "in_style": None if persona is None else problem % 2 == 0, "truncated": problem == 0,
        }
        for task in ("problems", "role_play")
        for problem in range(4)
        for persona in (None, *PERSONAS)
    ]  # fmt: skip


def _write_json(path: Path, content: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, allow_nan=False))

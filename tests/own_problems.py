"""A user's own files: a random model, sums without worked solutions, and personas."""

from pathlib import Path

from random_model import write_model

from permix_jax.core.files import write_rows


def write_personas(path: Path, splits: dict[str, str]) -> Path:
    """A file of personas: the word that each is, which is its id, too, and its split."""
    texts = {word: {"name": word, "system_prompt": f"You are a {word}."} for word in splits}
    own = [{"id": w, "category": "x", "split": split} | texts[w] for w, split in splits.items()]
    write_rows(path, own)
    return path


def own_problems(folder: Path, splits: dict[str, str], sums: int = 8) -> dict[str, str | int]:
    """Writes the files into `folder`; the fields that name them."""
    write_model(folder / "model")
    rows = [{"prompt": f"What is {i} + {i}?", "answer": str(2 * i)} for i in range(sums)]
    write_rows(folder / "mine.jsonl", rows)
    return {
        "task.name": "problems",
        "model.source": str(folder / "model"),
        "data.train": str(folder / "mine.jsonl"),
        "data.test": "",
        "personas.file": str(write_personas(folder / "personas.jsonl", splits)),
        "rollout.max_prompt_tokens": 256,
        "sft.steps": 0,
        "eval.role_play_samples": 0,
    }

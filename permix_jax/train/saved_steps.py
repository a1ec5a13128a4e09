"""Which checkpoints a folder has, by the names of their files; nothing is read."""

from collections.abc import Sequence
from pathlib import Path

from permix_jax.core.places import Address


def saved_steps(directory: Path) -> list[int]:
    """The steps of the checkpoints that are whole, in their order; none without a folder.

    A local one gets its name when it is whole. In a store all processes must have sent it
    (`mirror`).
    """
    if not isinstance(directory, Address):
        names = (path.name for path in directory.glob("*"))
        return sorted(int(name) for name in names if name.isdecimal())
    marks: dict[str, list[str]] = {}
    for mark in directory.glob("*/sent.*"):
        marks.setdefault(mark.parent.name, []).append(mark.name)
    return sorted(int(n) for n, names in marks.items() if n.isdecimal() and all_sent(names))


def all_sent(marks: Sequence[str]) -> bool:
    """Whether the marks of a checkpoint, "sent.<I>-of-<N>", are those of all N processes."""
    return any(len(marks) == int(name.rpartition("-")[2]) for name in marks)

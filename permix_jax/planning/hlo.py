"""Reads the text of a compiled program (HLO, in the order of its schedule)."""

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import NamedTuple

COLLECTIVES = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "collective-permute")
_COMPUTATION = re.compile(r"(ENTRY )?%([^ ]+) \(.*\{$")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([^ ]+) = (.*?) ([a-z][a-z0-9-]*)\((.*)")
_ARRAY = re.compile(r"([a-z]\w*)\[([\d,]*)\](\{[^}]*\})?")
_CALLED = re.compile(r"(?:body|condition|calls|(?:true|false)_computation)=%([^ ,]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
# What JAX and XLA wrap a name in; what is left names a part of the source.
_WRAPPERS = re.compile(
    r"while|body|cond|closed_call|checkpoint|shard_map|custom_[jv]\w+|branch_\d+_fun|pjit|Decoder"
    r"|\w*\.\w+|.*->.*|"
)


class Instruction(NamedTuple):
    name: str
    shape: str  # with layout; of several arrays in parentheses
    opcode: str
    operands: tuple[str, ...]  # their names
    attributes: str  # all the rest of the line

    def called(self) -> list[str]:
        """The computations that it runs. Of a while loop: condition and body."""
        if found := _BRANCHES.search(self.attributes):
            return re.findall(r"%([^ ,]+)", found[1])
        if self.opcode == "call":
            return re.findall(r"to_apply=%([^ ,]+)", self.attributes)
        return _CALLED.findall(self.attributes)

    def number(self, key: str) -> int | None:
        """A number of its backend config, such as estimated_cycles."""
        found = re.search(rf'"{key}":(?:\{{"n":)?"(\d+)"', self.attributes)
        return int(found[1]) if found else None


def computations(text: str) -> tuple[dict[str, list[Instruction]], str]:
    """The instructions of each computation, and the name of the entry.

    Raises ValueError for a text without an entry.
    """
    found, entry, block = {}, "", []
    for line in text.splitlines():
        if line[:1] not in (" ", "}") and (head := _COMPUTATION.match(line)):
            block = found[head[2]] = []
            entry = head[2] if head[1] else entry
        elif match := _INSTRUCTION.match(line):
            name, shape, opcode, rest = match.groups()
            operands, _, attributes = rest.partition(")")
            names = tuple(re.findall(r"%([^ ,]+)", operands))
            attributes = operands if opcode == "constant" else attributes
            block.append(Instruction(name, shape, opcode, names, attributes))
    if not entry:
        raise ValueError("a compiled program without an ENTRY computation")
    return found, entry


def size(shape: str, only: Callable[[str], bool] = lambda layout: True) -> float:
    """Bytes of the arrays of a shape whose layout is one of `only`, without padding."""
    total = 0.0
    for dtype, dims, layout in _ARRAY.findall(shape):
        bits = 8 if dtype == "pred" else int((re.findall(r"\d+", dtype) or [0])[0])
        total += prod(map(int, filter(None, dims.split(",")))) * bits / 8 * only(layout)
    return total


def in_hbm(layout: str) -> bool:
    """Whether an array lies in HBM, and not in one of the memories on the core."""
    return "S(" not in layout


def group_size(attributes: str) -> int:
    """How many chips take part in one group of a collective; 2, which exchange, without groups."""
    if grid := re.search(r"replica_groups=\[\d+,(\d+)\]", attributes):
        return int(grid[1])
    if mesh := re.search(r"replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}", attributes):
        sizes = dict(re.findall(r"('[^']+')=(\d+)", mesh[1]))
        axes = re.findall(r"('[^']+')(?::\(\d+\)(\d+))?", mesh[2])
        return prod(int(part or sizes[axis]) for axis, part in axes)
    groups = re.search(r"replica_groups=\{\{([\d,]*)\}", attributes)
    return groups[1].count(",") + 1 if groups else 2


def trip_count(loop: Instruction, condition: Sequence[Instruction]) -> int | None:
    """How often a while loop runs; None if the program learns it only when it runs.

    JAX's loops count from 0 in steps of 1, so that is the constant they are compared with. Where a
    condition has several, the others are 0 or flags: the largest counts.
    """
    if (known := loop.number("known_trip_count")) is not None:
        return known
    numbers = [x.attributes for x in condition if x.opcode == "constant" and x.shape[:1] in "su"]
    return max((int(x) for x in numbers if x.isdecimal()), default=0) or None


def places(block: Sequence[Instruction]) -> Mapping[str, str]:
    """The place in the source of each instruction; of one without, that of its first user."""
    own = {x.name: place(x.attributes) for x in block}
    found = dict(own)
    for x in reversed(block):
        for operand in x.operands:
            if found[x.name] and not own.get(operand):
                found[operand] = found[x.name]
    return found


def place(attributes: str) -> str:
    """The named scopes of an instruction, such as "backward/layers/mlp"; "" without any.

    Layers count as one. What the backward pass computes again says "again", what it computes from
    the cotangents "backward".
    """
    found = re.search(r'op_name="((?:[^"\\]|\\.)*)"', attributes)
    name = found[1].partition(";")[0] if found else ""
    if not name.startswith("jit("):
        return ""
    path = re.sub(r"jit\([^)]*\)/", "/", name).split("/")[:-1]
    again, backward = "rematted_computation" in path, "transpose(" in name
    parts = [re.sub(r"\w+\(|\)", "", part) for part in path if part != "rematted_computation"]
    kept = [re.sub(r"_\d+$", "", part) for part in parts if not _WRAPPERS.fullmatch(part)]
    kept = [part for i, part in enumerate(kept) if kept[i - 1 : i] != [part]]
    return "/".join(["again"] * again + ["backward"] * (backward and not again) + kept)

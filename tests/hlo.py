"""Reads what a compiled program sends between devices from its HLO text."""

import re
from math import prod
from typing import NamedTuple

_KINDS = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
_OP = re.compile(rf"= (?P<shape>.+?) (?P<kind>{_KINDS})(-start)?\(")
_ARRAY = re.compile(r"(\w+?)(\d*)\[([\d,]*)\]")
_CALLED = re.compile(
    r"(?:to_apply|calls|body|condition)=(%[\w.\-]+)|branch_computations=\{([%\w.\-, ]+)\}"
)


class Collective(NamedTuple):
    """`bytes`: of its largest result on a device. `line`: of the program."""

    kind: str
    bytes: int
    line: str


def computations(text: str) -> dict[str, list[str]]:
    """Name -> lines, of each computation of a module."""
    found, name = {}, None
    for line in text.splitlines():
        if opening := re.match(r"(?:ENTRY )?%?([\w.\-]+) \(.*\{$", line):
            name = opening[1]
            found[name] = []
        elif name:
            found[name].append(line)
    return found


def collectives(lines) -> list[Collective]:
    return [
        Collective(op["kind"], max(map(_bytes, _ARRAY.findall(op["shape"]))), line.strip())
        for line in lines
        if (op := _OP.search(line))
    ]


def in_loops(text: str) -> list[str]:
    """Lines of all computations that run within some while loop."""
    parts = computations(text)
    roots = [
        name
        for lines in parts.values()
        for line in lines
        if " while(" in line
        for name in _called(line)
    ]
    seen = set()
    while roots:
        if (name := roots.pop()) not in seen:
            seen.add(name)
            roots += [called for line in parts[name] for called in _called(line)]
    return [line for name in sorted(seen) for line in parts[name]]


def _called(line: str) -> list[str]:
    names = ", ".join(one or several for one, several in _CALLED.findall(line))
    return [name.lstrip("%") for name in names.split(", ") if name]


def _bytes(array: tuple[str, str, str]) -> int:
    kind, bits, sizes = array
    width = 1 if kind == "pred" else int(bits) // 8
    return width * prod(int(size) for size in sizes.split(",") if size)

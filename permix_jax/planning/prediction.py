"""How long a compiled program takes a chip, by the compiler's own schedule and count of cycles.

libtpu writes into each instruction how many cycles it will take ("estimated_cycles"). Nothing was
run; on matmuls and streams the estimates lie between the data sheet's bound and 1.5 times it
(`tests/planning/test_prediction.py`). What it does not estimate is counted here:

- Copies into the core's memory run beside the instructions. They share HBM with them, and count
  where the schedule waits for them.
- Collectives: the bytes that a chip receives, over two of its links (a ring's two directions), and
  1 us for each other chip of the group. Asynchronous ones count where the schedule waits.
- Pallas kernels by the flops and bytes that they state, all else by its bytes, each at 80 % of the
  chip's peak.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

from permix_jax.core.tpus import Chip
from permix_jax.planning.hlo import (
    COLLECTIVES,
    Instruction,
    computations,
    group_size,
    in_hbm,
    places,
    size,
    trip_count,
)

SHARE = 0.8  # of the chip's peak, in what the compiler does not estimate: as it counts streams
_HOP = 1e-6  # seconds; https://jax-ml.github.io/scaling-book/sharding
# How a cost was counted.
CYCLES, COPIES, KERNEL, BYTES = "cycles", "waits for copies", "kernel, by its own count", "bytes"
_CONTROL = ("while", "conditional", "call")
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "custom-call"}


class Cost(NamedTuple):
    """What one place of the source takes of a program's time on a chip."""

    place: str  # named scopes, such as "backward/layers/mlp"
    kind: str  # how it was counted: CYCLES, COPIES, KERNEL, BYTES, or the name of a collective
    seconds: float
    link_bytes: float  # that collectives bring to the chip

    def times(self, times: int) -> "Cost":
        return self._replace(seconds=self.seconds * times, link_bytes=self.link_bytes * times)


# (place, kind) -> (seconds, bytes over the links)
_Costs = dict[tuple[str, str], tuple[float, float]]


def predict(text: str, chip: Chip, unknown_trips: float = 1) -> list[Cost]:
    """The costs of a program, the dearest first; their seconds add up to the program's.

    The body of a loop counts as often as it runs; one whose length only the run knows counts
    `unknown_trips` times. Of several branches the dearest counts.

    Args:
      text: the compiled program for a TPU (`jax.stages.Compiled.as_text()`).
    """
    blocks, entry = computations(text)
    costs = _Timer(blocks, chip, unknown_trips).costs(entry)
    found = [Cost(place or "other", kind, *cost) for (place, kind), cost in costs.items()]
    return sorted(found, key=lambda cost: -cost.seconds)


class _Queue:
    """Transfers that run in turn beside the instructions: how many seconds are issued and done."""

    def __init__(self):
        self.issued = self.done = 0.0

    def run(self, seconds: float) -> None:
        self.done = min(self.issued, self.done + seconds)


class _Timer:
    def __init__(self, blocks: Mapping[str, list[Instruction]], chip: Chip, unknown_trips: float):
        self.blocks, self.chip, self.unknown_trips = blocks, chip, unknown_trips
        self.known: dict[str, _Costs] = {}

    def costs(self, name: str) -> _Costs:
        """What one run of a computation costs."""
        if name not in self.known:
            self.known[name] = self._timed(self.blocks[name])
        return self.known[name]

    def _timed(self, block: list[Instruction]) -> _Costs:
        total, where = {}, places(block)
        shapes = {x.name: x.shape for x in block}
        arriving = {x.operands[0]: x.shape for x in block if x.opcode.endswith("-done")}
        memory, links = _Queue(), _Queue()
        under_way: dict[str, tuple[_Queue, float, str, float]] = {}
        for x in block:
            costs, busy = {}, 0.0  # and how many seconds it keeps HBM busy itself
            if x.opcode in _CONTROL:
                costs = self._nested(x)
            elif (key := self._transfer_key(x)) in under_way:
                queue, until, kind, moved = under_way.pop(key)
                costs = {("", kind): (max(0.0, until - queue.done), moved)}
            elif key:
                kind, seconds, moved = self._transfer(x, arriving.get(key, x.shape))
                queue = memory if kind == COPIES else links
                queue.issued += seconds
                under_way[key] = queue, queue.issued, kind, moved
            else:
                costs = self._alone(x, shapes)
                busy = _traffic(x, shapes) / self.chip.hbm_bandwidth if costs else 0.0
            for (place, kind), cost in costs.items():
                _add(total, (place or where[x.name], kind), cost)
            taken = _seconds(costs)
            memory.run(max(0.0, taken - busy))
            links.run(taken)
        return total

    def _nested(self, x: Instruction) -> _Costs:
        """What the computations cost that a loop, a branch or a call runs."""
        called = [self.costs(name) for name in x.called()]
        if x.opcode == "conditional":
            called = [max(called, key=_seconds)]
        times = 1
        if x.opcode == "while":
            condition = re.search(r"condition=%([^ ,]+)", x.attributes)[1]
            known = trip_count(x, self.blocks[condition])
            times = self.unknown_trips if known is None else known
        total: _Costs = {}
        for costs in called:
            for key, (seconds, moved) in costs.items():
                _add(total, key, (times * seconds, times * moved))
        return total

    def _alone(self, x: Instruction, shapes: Mapping[str, str]) -> _Costs:
        """What an instruction costs that runs by itself."""
        collective = self._collective(x)
        if (cycles := x.number("estimated_cycles")) is not None:
            kind, seconds, moved = CYCLES, cycles / self.chip.clock, 0.0
        elif collective and "async_collective_fusion_config" not in collective.attributes:
            kind, seconds, moved = self._transfer(x, x.shape)
        elif "tpu_custom_call" in x.attributes:
            flops, read = x.number("flops") or 0, x.number("bytes_accessed")
            read = _traffic(x, shapes) if read is None else read
            seconds = max(flops / self.chip.flops, read / self.chip.hbm_bandwidth) / SHARE
            kind, moved = KERNEL, 0.0
        elif x.opcode in _FREE:
            return {}
        else:
            seconds = _traffic(x, shapes) / self.chip.hbm_bandwidth / SHARE
            kind, moved = BYTES, 0.0
        return {("", kind): (seconds, moved)}

    def _transfer_key(self, x: Instruction) -> str:
        """What an asynchronous transfer that begins or ends here is known by; "" for the rest."""
        if x.opcode.endswith("-start"):
            return x.name
        if x.opcode.endswith(("-done", "-update")):
            return x.operands[0]
        if collective := self._collective(x):
            inner = (y.attributes for name in x.called() for y in self.blocks[name])
            if any("AsyncCollectiveStart" in y or "AsyncCollectiveDone" in y for y in inner):
                return re.search(r"channel_id=\d+", collective.attributes)[0]
        return ""

    def _collective(self, x: Instruction) -> Instruction | None:
        """The collective that an instruction is, or is made of."""
        if x.opcode.removesuffix("-start") in COLLECTIVES:
            return x
        inside = (y for name in x.called() for y in self.blocks[name])
        wraps = x.opcode in ("fusion", "async-start")
        return next((y for y in inside if y.opcode in COLLECTIVES), None) if wraps else None

    def _transfer(self, x: Instruction, arrives: str) -> tuple[str, float, float]:
        """(kind, seconds, bytes over the links) of a transfer whose result has this shape."""
        collective = self._collective(x)
        if collective is None:
            return COPIES, size(arrives) / self.chip.hbm_bandwidth / SHARE, 0.0
        kind, n = collective.opcode.removesuffix("-start"), group_size(collective.attributes)
        array = size(arrives if collective is x else collective.shape)
        if kind == "all-reduce" and any("scatter" in name for name in x.called()):
            kind, array = "reduce-scatter", array / n
        moved = array * {
            "all-reduce": 2 * (n - 1) / n,
            "reduce-scatter": n - 1,
            "collective-permute": 1,
        }.get(kind, (n - 1) / n)
        bandwidth = SHARE * 2 / self.chip.links * self.chip.ici_bandwidth
        return kind, moved / bandwidth + (n - 1) * _HOP, moved


def _traffic(x: Instruction, shapes: Mapping[str, str]) -> float:
    """Bytes of HBM that an instruction reads and writes.

    Of an operand that is larger than the result only as much is taken to be read: a gather or a
    slice reads no more. An update in place writes its update alone.
    """
    if x.opcode == "dynamic-update-slice":
        return 2 * size(shapes[x.operands[1]], in_hbm)
    read = (size(shapes.get(name, ""), in_hbm) for name in x.operands)
    return size(x.shape, in_hbm) + sum(min(each, size(x.shape)) for each in read)


def _add(total: _Costs, key: tuple[str, str], cost: tuple[float, float]) -> None:
    seconds, moved = total.get(key, (0.0, 0.0))
    total[key] = seconds + cost[0], moved + cost[1]


def _seconds(costs: _Costs) -> float:
    return sum(seconds for seconds, _ in costs.values())

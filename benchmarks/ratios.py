"""From the measured steps of each implementation to a table of medians and ratios."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import NamedTuple

from permix_jax.report.tables import text_table

OURS = "permix"
# Name of a quantity in the table, the unit it is printed in, and whether more of it is better.
QUANTITIES = {
    "rollout": ("tokens/s", True),
    "update": ("s", False),
    "step": ("s", False),
    "peak memory of rollout": ("GB", False),
    "peak memory of update": ("GB", False),
    "compile": ("s", False),
}


class Spread(NamedTuple):
    """Of repeats: their median, the lowest and the highest."""

    median: float
    low: float
    high: float


def spread(values: Sequence[float]) -> Spread:
    return Spread(median(values), min(values), max(values))


def summarize(measured: Mapping, tokens: int) -> dict[str, Spread]:
    """The QUANTITIES of one implementation.

    Args:
      measured: `compile_seconds`, and `steps`, each as `protocol.Session.done` answers it.
      tokens: that a rollout generates.
    """
    steps = measured["steps"]
    of = lambda phase, what: [step["phases"][phase][what] for step in steps]  # noqa: E731
    return {
        "rollout": spread([tokens / seconds for seconds in of("rollout", "seconds")]),
        "update": spread(of("update", "seconds")),
        "step": spread([step["seconds"] for step in steps]),
        "peak memory of rollout": spread([x / 1e9 for x in of("rollout", "peak_bytes")]),
        "peak memory of update": spread([x / 1e9 for x in of("update", "peak_bytes")]),
        "compile": spread([measured["compile_seconds"]]),
    }


def ratios(summaries: Mapping[str, Mapping[str, Spread]]) -> dict[str, dict[str, float]]:
    """How many times better our medians are than each peer's: faster, or of less memory.

    A quantity that a peer has none of (PyTorch compiles nothing) has no ratio.
    """
    found: dict[str, dict[str, float]] = {}
    for peer, summary in summaries.items():
        if peer == OURS:
            continue
        found[peer] = {}
        for name, (_, more_is_better) in QUANTITIES.items():
            ours, theirs = summaries[OURS][name].median, summary[name].median
            if ours and theirs:
                found[peer][name] = ours / theirs if more_is_better else theirs / ours
    return found


def shares_of_limit(
    summaries: Mapping[str, Mapping[str, Spread]], least: Mapping[str, float], tokens: int
) -> dict[str, dict[str, float]]:
    """The least seconds of rollout and update over each implementation's median ones."""
    return {
        name: {
            "rollout": least["rollout"] * summary["rollout"].median / tokens,
            "update": least["update"] / summary["update"].median,
        }
        for name, summary in summaries.items()
    }


def table(
    titles: Mapping[str, str],
    summaries: Mapping[str, Mapping[str, Spread]],
    shares: Mapping[str, Mapping[str, float]],
) -> str:
    """A line for each quantity: median (lowest to highest) of each implementation, our ratios."""
    by_peer = ratios(summaries) if OURS in summaries else {}
    header = ["", *(titles[name] for name in summaries), *(f"over {titles[p]}" for p in by_peer)]
    rows = [
        [
            f"{name}, {unit}",
            *(_spread_text(summary[name]) for summary in summaries.values()),
            *(_times(found.get(name)) for found in by_peer.values()),
        ]
        for name, (unit, _) in QUANTITIES.items()
    ]
    rows += [
        [f"{phase}, share of the limit", *(f"{share[phase]:.0%}" for share in shares.values())]
        + [""] * len(by_peer)
        for phase in ("rollout", "update")
    ]
    return text_table(header, rows)


def _spread_text(x: Spread) -> str:
    if x.low == x.high:
        return _number(x.median)
    return f"{_number(x.median)} ({_number(x.low)} to {_number(x.high)})"


def _number(x: float) -> str:
    """Three digits."""
    return f"{x:.0f}" if x >= 100 else f"{x:.3g}"


def _times(x: float | None) -> str:
    return "" if x is None else f"{x:.2f}x"

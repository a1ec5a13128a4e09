"""What takes a step's predicted time: the dearest places as text, and all of them as a picture."""

from collections.abc import Mapping
from html import escape

from permix_jax.planning.plan import Plan
from permix_jax.planning.prediction import COPIES, CYCLES, Cost
from permix_jax.report.tables import text_table

_STYLE = """\
body { font: 13px sans-serif; margin: 1em; }
.row { display: flex; }
.place { min-width: 0; overflow: hidden; white-space: nowrap; }
.place > span { display: block; margin: 1px; padding: 3px; overflow: hidden; background: #dfe6ee; }
.cycles > span { background: #f7c873; }
.copies > span { background: #9cc3e6; }
.other > span { background: #e69c9c; }
"""
_LEAST = 1e-3  # of the step: what is smaller is left out of the picture


def dearest(plan: Plan, rows: int = 20) -> str:
    """A table of the places of the source, over all programs, that take the most time."""
    found = [(name, cost) for name, use in plan.programs.items() for cost in use.costs]
    found = sorted(found, key=lambda x: -x[1].seconds)[:rows]
    columns = ["place", "counted by", "s", "of step", "link traffic, GB"]
    total = _total(plan)
    return text_table(
        columns,
        [
            [
                f"{name}/{cost.place}",
                cost.kind,
                f"{cost.seconds:.3g}",
                f"{cost.seconds / total:.1%}",
                f"{cost.link_bytes / 1e9:.3g}" if cost.link_bytes else "-",
            ]
            for name, cost in found
        ],
    )


def _total(plan: Plan) -> float:
    """Seconds of all programs that are predicted."""
    return sum(use.predicted() or 0 for use in plan.programs.values())


def explain_page(plan: Plan) -> str:
    """One HTML file: a flame of the step. Widths are seconds; below each place are its parts."""
    total = _total(plan)
    tree: dict = {}
    for name, use in plan.programs.items():
        for cost in use.costs:
            node = tree
            for part in [name, *cost.place.split("/")]:
                node = node.setdefault(part, {})
            node[cost] = cost.seconds
    title = f"A step on {escape(plan.topology)}: {total:.3g} s as predicted"
    return (
        f"<!doctype html>\n<html lang=en><meta charset=utf-8><title>{title}</title>\n"
        f"<style>\n{_STYLE}</style>\n<h1>{title}</h1>\n"
        "<p>Widths are seconds of a chip. Yellow: the compiler's cycles. Blue: waiting for copies. "
        "Red: collectives and what the compiler does not count.</p>\n"
        f"{_row(tree, total)}\n<h2>The dearest places</h2>\n<pre>{escape(dearest(plan))}</pre>\n"
    )


def _row(tree: Mapping, total: float) -> str:
    """The parts of a place side by side, each with its own parts below it."""
    seconds = {part: _sum(inner) for part, inner in tree.items()}
    kept = sorted((x for x in tree if seconds[x] > _LEAST * total), key=lambda x: -seconds[x])
    places = "".join(_place(x, tree[x], total) for x in kept)
    rest = sum(seconds.values()) - sum(seconds[x] for x in kept)
    return f'<div class=row>{places}<div style="{_wide(rest, total)}"></div></div>'


def _place(part: str | Cost, inner: Mapping | float, total: float) -> str:
    seconds = _sum(inner)
    name, kind, below = part, "", ""
    if isinstance(part, Cost):
        name = part.kind
        kind = {CYCLES: " cycles", COPIES: " copies"}.get(part.kind, " other")
    else:
        below = _row(inner, total)
    label = escape(f"{name} {seconds:.3g} s, {seconds / total:.1%}")
    return (
        f'<div class="place{kind}" style="{_wide(seconds, total)}" title="{label}">'
        f"<span>{label}</span>{below}</div>"
    )


def _wide(seconds: float, total: float) -> str:
    """A width in proportion. In millionths: factors below 1 together would not fill a row."""
    return f"flex: {1e6 * seconds / total if total else 0:.0f} 1 0"


def _sum(inner: Mapping | float) -> float:
    return sum(map(_sum, inner.values())) if isinstance(inner, Mapping) else inner

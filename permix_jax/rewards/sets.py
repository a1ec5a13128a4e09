r"""Sets of reals: buys x > 2, (2, \infty), {x | x > 2}, |x| > 2 and x \ne 0 as one notion."""

from math import ceil, floor, inf

from permix_jax.rewards.expression import (
    EXPRESSIONS,
    Node,
    inverse,
    is_name,
    names,
    negated,
    number,
    replaced,
    times,
)
from permix_jax.rewards.tree import INFINITY
from permix_jax.rewards.values import place, rational

# (low end, whether it belongs to it, high end, whether it belongs to it)
Interval = tuple[Node, bool, Node, bool]
MAX_WHOLE = 200

_BELOW = negated(INFINITY)
_SIGNS = {"<", "\\le", "\\ne", "\\in"}


def is_set(tree: Node) -> bool:
    """Whether a tree is written as a set of reals and as nothing else ((1, 2) may be a pair)."""
    if tree[0] == "list":
        return any(map(is_set, tree[1]))
    return tree[0] in ("cup", "cap", "minus", "builder") or (
        tree[0] == "rel" and bool(set(tree[1]) & _SIGNS)
    )


def whole_set(tree: Node) -> Node | None:
    """The integers in a bounded set of reals, as ("set", ...); lists and sets of numbers as such."""
    if tree[0] in ("list", "set") and all(part[0] == "num" for part in tree[1]):
        return ("set", tree[1])
    if tree[0] == "builder" and tree[1][0] == "rel":
        tree = ("builder", tree[1][2][0], tree[2])  # {n \in Z: ...}
    found: list[Node] = []
    for low, low_closed, high, high_closed in real_set(tree) or [
        (INFINITY, False, INFINITY, False)
    ]:
        start, end = _place(low), _place(high)
        if start is None or end is None or not end - start < MAX_WHOLE:
            return None
        first, last = ceil(start), floor(end)
        first += first == start and not low_closed
        last -= last == end and not high_closed
        found += map(number, range(first, last + 1))
    return ("set", tuple(found))


def real_set(tree: Node, name: Node | None = None) -> list[Interval] | None:
    """The intervals of a set of reals, in order where they have one; None for what is none.

    `name`: the variable that a condition is about; None: any.
    """
    match tree:
        case ("tuple", opening, closing, (low, high)) if _scalar(low) and _scalar(high):
            return [(low, opening == "[", high, closing == "]")]
        case ("set", parts) if all(map(_scalar, parts)):
            return _merged([(part, True, part, True) for part in parts])
        case ("cup", parts):
            return _united([real_set(part, name) for part in parts])
        case ("cap", parts):
            return _common([real_set(part, name) for part in parts])
        case ("minus", (whole, part)):
            return _common([real_set(whole, name), _complement(real_set(part, name))])
        case ("builder", ("rel", ("\\in",), (variable, whole)), condition) if whole != (
            "sym",
            "\\Z",
        ):
            return _common([real_set(whole), real_set(condition, variable)])
        case ("builder", variable, condition) if is_name(variable):
            return real_set(condition, variable)
        case ("list", parts, mark):
            return _listed(parts, mark, name)
        case ("rel", ("\\in",), (variable, whole)):
            return real_set(whole, name) if is_name(variable) else None
        case ("rel", signs, parts):
            return _related(signs, parts, name)
    return None


def _listed(parts: tuple, mark: str, name: Node | None) -> list[Interval] | None:
    first = parts[0]
    if first[0] == "rel" and first[1] == ("\\ne",):  # "x \ne 0, 1"
        parts = tuple(("rel", ("\\ne",), (first[2][0], p)) if _scalar(p) else p for p in parts)
    found = [real_set(part, name) for part in parts]
    if mark != "or" and not any(part[0] == "tuple" for part in parts):
        common = _common(found)  # "x > 1, x < 3" is both; "x < 1, x > 3" is either
        if common or common is None:
            return common
    return _united(found)


def _related(signs: tuple, parts: tuple, name: Node | None) -> list[Interval] | None:
    subjects = [i for i, part in enumerate(parts) if _scalar(part) and _is_subject(part, name)]
    if len(subjects) != 1 or len(parts) > 3:
        return None
    at = subjects[0]
    subject, others = parts[at], parts[:at] + parts[at + 1 :]
    if signs in (("\\ne",), ("=",)):
        points = others[0][1] if others[0][0] in ("list", "set") else others
        if not all(map(_scalar, points)) or (subject[0] == "f" and signs == ("=",)):
            return None
        if subject[0] == "f":
            points = [end for point in points for end in _around(subject, point)]
        met = _merged([(point, True, point, True) for point in points])
        return _complement(met) if signs == ("\\ne",) else met
    if (
        not set(signs) <= {"<", "\\le"}
        or not all(map(_scalar, parts))
        or (len(parts) == 3 and at != 1)
    ):
        return None
    if any(names(other) & names(subject) for other in others):
        return None
    low, low_closed = (parts[at - 1], signs[at - 1] == "\\le") if at else (_BELOW, False)
    high, high_closed = (
        (parts[at + 1], signs[at] == "\\le") if at < len(parts) - 1 else (INFINITY, False)
    )
    if subject[0] != "f":
        return [(low, low_closed, high, high_closed)]
    if len(parts) == 3:
        return None
    left, right = _around(subject, others[0])
    if at == 0:  # |x - c| < r
        return [(left, high_closed, right, high_closed)]
    return [(_BELOW, False, left, low_closed), (right, low_closed, INFINITY, False)]


def _around(subject: Node, reach: Node) -> tuple[Node, Node]:
    """The two x with |k (x - c)| = reach."""
    center, factor = _linear(subject[2][0])
    reach = reach if factor == number(1) else times(reach, inverse(factor))
    return (
        (negated(reach), reach)
        if center == number(0)
        else (("+", (center, negated(reach))), ("+", (center, reach)))
    )


def _is_subject(part: Node, name: Node | None) -> bool:
    if part[0] == "f" and part[1] == "abs":
        return _linear(part[2][0]) is not None
    return is_name(part) and name in (None, part)


def _linear(node: Node) -> tuple[Node, Node] | None:
    """(c, |k|) of k (x - c)."""
    if len(found := names(node)) == 1:
        (letter,) = found
        at = [rational(replaced(node, ("sym", letter), number(x))) for x in (0, 1, 2)]
        if None not in at and at[2] - at[1] == at[1] - at[0] != 0:
            return number(-at[0] / (at[1] - at[0])), number(abs(at[1] - at[0]))
    return None


def _scalar(tree: Node) -> bool:
    return tree[0] in EXPRESSIONS


def _place(end: Node):
    """Where an end lies on the line; None where that is not known."""
    return inf if end == INFINITY else -inf if end == _BELOW else place(end)


def _complement(intervals: list[Interval] | None) -> list[Interval] | None:
    """All other reals."""
    if intervals is None or (
        len(intervals) > 1 and any(_place(low) is None for low, *_ in intervals)
    ):
        return None
    ends = [
        (_BELOW, True),
        *((e, c) for a, b, x, y in intervals for e, c in ((a, b), (x, y))),
        (INFINITY, True),
    ]
    gaps = zip(ends[::2], ends[1::2], strict=True)
    found = [(low, not closed, high, not shut) for (low, closed), (high, shut) in gaps]
    return [gap for gap in found if gap[0] != gap[2]]


def _united(parts: list) -> list[Interval] | None:
    return None if None in parts else _merged([interval for part in parts for interval in part])


def _merged(intervals: list[Interval]) -> list[Interval]:
    """Intervals in order, those that touch as one; as they are where the order is not known."""
    if any(_place(end) is None for low, _, high, _ in intervals for end in (low, high)):
        return intervals
    kept: list[Interval] = []
    for low, low_closed, high, high_closed in sorted(
        intervals, key=lambda i: (_place(i[0]), not i[1])
    ):
        if _gap(low, high) < 0 or (_gap(low, high) == 0 and not (low_closed and high_closed)):
            continue
        if kept:
            start, start_closed, end, end_closed = kept[-1]
            gap = _gap(end, low)
            if gap < 0 or (gap == 0 and (low_closed or end_closed)):
                further = _gap(end, high)
                if further >= 0:
                    end_closed = high_closed or (end_closed and further == 0)
                    end = high if further else end
                kept[-1] = (start, start_closed, end, end_closed)
                continue
        kept.append((low, low_closed, high, high_closed))
    return kept


def _gap(one: Node, two: Node):
    """How far `two` lies to the right of `one`."""
    a, b = _place(one), _place(two)
    return 0 if a == b or abs(b - a) < 1e-30 else b - a


def _common(parts: list) -> list[Interval] | None:
    """What belongs to all; None where the order of the ends is not known."""
    if None in parts or any(_place(e) is None for p in parts for i in p for e in (i[0], i[2])):
        return None
    found = parts[0]
    for part in parts[1:]:
        met = []
        for a, b in ((a, b) for a in found for b in part):
            low = max(a[:2], b[:2], key=lambda end: (_place(end[0]), not end[1]))
            high = min(a[2:], b[2:], key=lambda end: (_place(end[0]), end[1]))
            met.append((*low, *high))
        found = _merged(met)
    return found

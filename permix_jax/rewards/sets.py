r"""Sets of reals: buys x > 2, (2, \infty), {x | x > 2}, |x| > 2 and x \ne 0 as one notion."""

from permix_jax.rewards.expression import (
    HALF,
    Node,
    inverse,
    is_name,
    names,
    negated,
    number,
    times,
)
from permix_jax.rewards.values import canonical, digits

INFINITY = ("inf",)
_BELOW = negated(INFINITY)
# (low end, whether it belongs to it, high end, whether it belongs to it)
Interval = tuple[Node, bool, Node, bool]

_KINDS = {"cup", "cap", "minus", "builder"}
_SIGNS = {"<", "\\le", "\\ne", "\\in"}


def is_set(tree: Node) -> bool:
    """Whether a tree is written as a set of reals and as nothing else ((1, 2) may be a pair)."""
    if tree[0] == "list":
        return any(map(is_set, tree[1]))
    return tree[0] in _KINDS or (tree[0] == "rel" and bool(set(tree[1]) & _SIGNS))


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
            taken = real_set(part, name)
            if taken is None or any(low != high for low, _, high, _ in taken):
                return None
            return _common([real_set(whole, name), _without([low for low, *_ in taken])])
        case ("builder", variable, condition):
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
    if first[0] == "rel" and first[1] == ("\\in",) and all(p[0] in ("rel", "tuple") for p in parts):
        pass
    found = [real_set(part, name) for part in parts]
    if mark != "or" and not any(part[0] == "tuple" for part in parts):
        common = _common(found)  # "x > 1, x < 3" is both; "x < 1, x > 3" is either
        if common or common is None:
            return common
    return _united(found)


def _related(signs: tuple, parts: tuple, name: Node | None) -> list[Interval] | None:
    places = [i for i, part in enumerate(parts) if names(part) and _is_subject(part, name)]
    if len(places) != 1 or not all(map(_scalar, parts)):
        return None
    ((at,),) = (places,)
    subject, others = parts[at], parts[:at] + parts[at + 1 :]
    if any(names(other) & names(subject) for other in others):
        return None
    if signs in (("\\ne",), ("=",)):
        if subject[0] == "f":
            return None
        return _without([others[0]]) if signs == ("\\ne",) else [(others[0], True, others[0], True)]
    if not set(signs) <= {"<", "\\le"} or len(parts) > 3 or (len(parts) == 3 and at != 1):
        return None
    low, low_closed, high, high_closed = _BELOW, False, INFINITY, False
    if at > 0:
        low, low_closed = parts[at - 1], signs[at - 1] == "\\le"
    if at < len(parts) - 1:
        high, high_closed = parts[at + 1], signs[at] == "\\le"
    if subject[0] != "f":
        return [(low, low_closed, high, high_closed)]
    center, factor = _linear(subject[2][0])
    if len(parts) == 3 or center is None:
        return None
    reach = times(others[0], inverse(factor)) if factor != number(1) else others[0]
    left, right = ("+", (center, negated(reach))), ("+", (center, reach))
    if at == 0:  # |x - c| < r
        return [(left, high_closed, right, high_closed)]
    return [(_BELOW, False, left, low_closed), (right, low_closed, INFINITY, False)]


def _is_subject(part: Node, name: Node | None) -> bool:
    if part[0] == "f" and part[1] == "abs":
        return _linear(part[2][0])[0] is not None
    return is_name(part) and name in (None, part)


def _linear(node: Node) -> tuple[Node | None, Node]:
    """(c, |k|) of k (x - c)."""
    terms = dict(canonical(node) or {})
    rest = terms.pop((), 0)
    if len(terms) == 1 and len(names(node)) == 1:
        ((monomial, slope),) = terms.items()
        if len(monomial) == 1 and monomial[0][1] == 1 and isinstance(monomial[0][0], str):
            return number(-rest / slope), number(abs(slope))
    return None, HALF


def _scalar(tree: Node) -> bool:
    return tree[0] in ("num", "sym", "+", "*", "^", "f", "inf")


def _place(end: Node):
    """Where an end lies on the line; None where that is not known."""
    if end in (INFINITY, _BELOW):
        return float("inf") if end == INFINITY else float("-inf")
    found = None if names(end) else digits(end, "a")
    return (
        None
        if found is None or isinstance(found, str) or abs(found[1].imag) > 1e-30
        else found[1].real
    )


def _without(points: list[Node]) -> list[Interval] | None:
    """All reals but some."""
    places = [_place(point) for point in points]
    if len(points) > 1 and None in places:
        return None
    if len(points) > 1:
        points = [
            point for _, point in sorted(zip(places, points, strict=True), key=lambda pair: pair[0])
        ]
    ends = [_BELOW, *points, INFINITY]
    return [(low, False, high, False) for low, high in zip(ends, ends[1:], strict=False)]


def _united(parts: list) -> list[Interval] | None:
    return None if None in parts else _merged([interval for part in parts for interval in part])


def _merged(intervals: list[Interval]) -> list[Interval]:
    """Intervals in order, those that touch as one; as they are where the order is not known."""
    places = [(_place(low), not closed) for low, closed, _, _ in intervals]
    if any(_place(end) is None for low, _, high, _ in intervals for end in (low, high)):
        return intervals
    kept: list[Interval] = []
    order = sorted(range(len(intervals)), key=places.__getitem__)
    for low, low_closed, high, high_closed in (intervals[i] for i in order):
        if _place(low) > _place(high) or (_same(low, high) and not (low_closed and high_closed)):
            continue
        if kept:
            start, start_closed, end, end_closed = kept[-1]
            gap = _place(low) - _place(end) if not _same(low, end) else 0
            if gap < 0 or (gap == 0 and (low_closed or end_closed)):
                if _same(high, end):
                    end_closed = end_closed or high_closed
                elif _place(high) > _place(end):
                    end, end_closed = high, high_closed
                kept[-1] = (start, start_closed, end, end_closed)
                continue
        kept.append((low, low_closed, high, high_closed))
    return kept


def _same(one: Node, two: Node) -> bool:
    a, b = _place(one), _place(two)
    return a == b or abs(a - b) < 1e-30


def _common(parts: list) -> list[Interval] | None:
    """What belongs to all; None where the order of the ends is not known."""
    if None in parts or any(_place(e) is None for p in parts for i in p for e in (i[0], i[2])):
        return None
    found = parts[0]
    for part in parts[1:]:
        met = []
        for a in found:
            for b in part:
                low = max((a[0], a[1]), (b[0], b[1]), key=lambda end: (_place(end[0]), not end[1]))
                high = min((a[2], a[3]), (b[2], b[3]), key=lambda end: (_place(end[0]), end[1]))
                met.append((*low, *high))
        found = _merged(met)
    return found

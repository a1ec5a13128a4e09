"""Filters training problems: MATH by level and subject, GSM8K by the steps of its solution.

A filter reads one field of `meta` and keeps all problems without that field: with
data.train = "gsm8k,mawps", data.max_steps filters GSM8K alone.
"""

from collections.abc import Sequence

from permix_jax.core.problem import Problem


def filter_problems(
    problems: Sequence[Problem], max_steps: int, levels: str, subjects: str
) -> list[Problem]:
    """The problems that pass all filters (see `config.data`); 0 and "" are no filter.

    Presets set `max_steps` for any data, so it is no error if no problem has steps.

    Raises:
      ValueError: no problem has the field, or none has such a value (the message names config
        field, value and remedy).
    """
    kept = list(problems)
    if max_steps:
        kept = _with_few_steps(kept, max_steps)
    for name, wanted in (("level", levels), ("subject", subjects)):
        if wanted:
            kept = _named(kept, name, wanted)
    return kept


def _with_few_steps(problems: Sequence[Problem], max_steps: int) -> list[Problem]:
    counts = [problem.meta["steps"] for problem in problems if "steps" in problem.meta]
    if not counts:
        return list(problems)
    # Steps 0: the solution, mostly algebra, marks no calculation, so its steps are unknown.
    fewest = min((count for count in counts if count), default=0)
    if not 1 <= fewest <= max_steps:
        raise ValueError(
            f"data.max_steps is {max_steps}, which leaves no problem; use {max(fewest, 1)} or more"
        )
    return [p for p in problems if "steps" not in p.meta or 1 <= p.meta["steps"] <= max_steps]


def _named(problems: Sequence[Problem], name: str, wanted: str) -> list[Problem]:
    field = f"data.{name}s"
    there = {_plain(p.meta[name]): str(p.meta[name]) for p in problems if name in p.meta}
    if not there:
        raise ValueError(f"{field} is set, but no problem of data.train has {name}; leave it unset")
    parts = wanted.split(",")
    if unknown := [part.strip() for part in parts if _plain(part) not in there]:
        raise ValueError(
            f"{field} is {wanted!r}, but no problem of data.train has {name} {unknown[0]!r}; use "
            f"some of {', '.join(sorted(there.values()))}"
        )
    plain = set(map(_plain, parts))
    return [p for p in problems if name not in p.meta or _plain(p.meta[name]) in plain]


def _plain(value: object) -> str:
    """ "Counting & Probability", "counting_and_probability" -> "countingprobability"; 3 -> "3"."""
    words = str(value).lower().replace("_", " ").replace("&", " ").split()
    return "".join(word for word in words if word not in ("and", "level"))

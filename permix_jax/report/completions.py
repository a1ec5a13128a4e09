"""Answers of policies to the same prompts, side by side: the data of a report's browser."""

from collections.abc import Mapping, Sequence

from permix_jax.report.content import persona_link, section
from permix_jax.report.tables import table

PAIRS = 600  # at most in a report, of each kind of prompt
CHARACTERS = 1_000_000  # of the completions of a kind in a report; the last may go beyond

_SHOWN = ("completion", "correct", "in_style", "truncated")


def browser_of(
    policies: Mapping[str, Sequence[Mapping]], pairs: int = PAIRS, characters: int = CHARACTERS
) -> dict | None:
    """The answers of policies to the same prompts; None if there are none.

    The outcome of an answer is `correct` for problems and `in_style` for role-play: 1, 0 or None.
    Questions where a persona lost its right answer between the first and the last policy come
    first, then the others in the order of the evaluation, first samples first. Those beyond
    `pairs` or `characters` are left out.

    Args:
      policies: name -> rows of completions.jsonl.

    Returns:
      Plain data. `policies`. `kinds`: `name`, the words of its two `outcomes`, and how many `pairs`
      of question and persona exist and are `shown`. `questions`: `kind`, `problem`, `sample`,
      `prompt`, `answer` and, by policy, whether the outcome `flips` between personas. `pairs`: the
      index of the `question`, the `persona` and, by policy, the `answers` (or None).
    """
    names, questions = list(policies), _questions(policies)
    result: dict = {"policies": names, "kinds": [], "questions": [], "pairs": []}
    places: dict[tuple, int] = {}
    for kind in dict.fromkeys(kind for kind, *_ in questions):
        of_kind = [(key, people) for key, people in questions.items() if key[0] == kind]
        of_kind.sort(key=lambda item: (not _regressed(kind, item[1], names), item[0][2]))
        each = [(key, persona) for key, people in of_kind for persona in people]
        kept = _cut(each, questions, pairs, characters)
        for key, persona in kept:
            if key not in places:
                places[key] = len(places)
                result["questions"].append(_question(key, questions[key], names))
            rows = [questions[key][persona].get(name) for name in names]
            answers = [row and {field: row.get(field) for field in _SHOWN} for row in rows]
            result["pairs"].append(
                {"question": places[key], "persona": persona, "answers": answers}
            )
        result["kinds"].append(
            {"name": kind, "outcomes": _words(kind), "pairs": len(each), "shown": len(kept)}
        )
    return result if result["pairs"] else None


def _cut(each: Sequence[tuple], questions: Mapping, pairs: int, characters: int) -> list[tuple]:
    """The first pairs (question, persona) up to both limits."""
    kept = []
    for key, persona in each[:pairs]:
        if characters <= 0:
            break
        kept.append((key, persona))
        characters -= sum(len(row["completion"]) for row in questions[key][persona].values())
    return kept


def changes_section(policies: Mapping[str, Sequence[Mapping]]) -> dict:
    """How many answers changed from the first to the last policy, by persona, over all rows."""
    names, counts = list(policies), {}
    for (kind, *_), by_persona in _questions(policies).items():
        for persona, rows in by_persona.items():
            if name := change(kind, rows.get(names[0]), rows.get(names[-1])):
                of_kind = counts.setdefault(kind, {})
                of_kind.setdefault(persona, dict.fromkeys(_CHANGES.values(), 0))[name] += 1
    tables = [_changes_table(kind, of_kind) for kind, of_kind in counts.items()]
    note = (
        f"Answers to the same prompts by {names[0]} and by {names[-1]}, counted over all of them."
    )
    return section("changes", "What changed", note, tables if len(names) > 1 else [])


def answers_table(
    policies: Mapping[str, Sequence[Mapping]],
    kind: str = "problems",
    personas: Sequence[str | None] = (),
    questions: int = 1,
) -> dict:
    """The answers of policies to the same prompts: a row for each persona, a column a policy.

    Questions whose answers by the first policy are right (role-play: in style) under some personas
    only come first.

    Args:
      policies: name -> rows of completions.jsonl.
      kind: problems or role_play.
      personas: whose answers are shown; empty: everybody's.
      questions: how many are shown; first samples come first.

    Raises:
      ValueError: no answer to show.
    """
    first, rows = next(iter(policies)), []
    of_kind = [item for item in _questions(policies).items() if item[0][0] == kind]
    of_kind.sort(key=lambda item: (item[0][2], not _flips(kind, item[1], first)))
    for _, by_persona in of_kind[:questions]:
        for persona, answers in by_persona.items():
            if persona in personas or not personas:
                cells = [_marked(kind, answers.get(name)) for name in policies]
                prompt = next(iter(answers.values()))["prompt"]
                rows.append([prompt, "no persona" if persona is None else persona, *cells])
    if not rows:
        whom = ", ".join(map(str, personas)) or "any persona"
        raise ValueError(f"no answers of the kind {kind!r} under {whom}; completions.jsonl has all")
    return table({"prompt": "", "persona": ""} | dict.fromkeys(policies, ""), rows)


def _marked(kind: str, row: Mapping | None) -> str | None:
    """A completion and, in brackets, its outcome if that is known."""
    known = outcome(kind, row)
    if row is None or known is None:
        return row and row["completion"]
    return f"{row['completion']} ({_words(kind)[1 - known]})"


# (outcome before, after) -> what became of an answer
_CHANGES = {(1, 0): "regressed", (0, 1): "improved", (1, 1): "kept", (0, 0): "never"}


def _changes_table(kind: str, counts: Mapping[str | None, Mapping]) -> dict:
    good, bad = _words(kind)
    columns = {
        "persona": "",
        "answers": "d",
        f"regressed ({good} → {bad})": "d",
        f"improved ({bad} → {good})": "d",
        f"{good} in both": "d",
        f"{bad} in both": "d",
    }
    rows = [
        [persona_link(persona, kind), sum(row.values()), *row.values()]
        for persona, row in counts.items()
    ]
    return table(columns, rows, kind.replace("_", "-"))


def outcome(kind: str, row: Mapping | None) -> int | None:
    """1, 0, or None where there is no answer or no verdict."""
    value = row and row.get("in_style" if kind == "role_play" else "correct")
    return None if value is None else int(value)


def change(kind: str, before: Mapping | None, after: Mapping | None) -> str:
    """regressed, improved, kept or never; "" if one of the outcomes is not known."""
    return _CHANGES.get((outcome(kind, before), outcome(kind, after)), "")


def _words(kind: str) -> tuple[str, str]:
    return ("in style", "off style") if kind == "role_play" else ("right", "wrong")


def _questions(policies: Mapping[str, Sequence[Mapping]]) -> dict[tuple, dict]:
    """(kind, problem, sample) -> persona -> policy -> row, in the order of the rows."""
    questions: dict = {}
    for name, rows in policies.items():
        for row in rows:
            by_persona = questions.setdefault((row["task"], row["problem"], row["sample"]), {})
            by_persona.setdefault(row["persona"], {})[name] = row
    return questions


def _regressed(kind: str, by_persona: Mapping, names: Sequence[str]) -> bool:
    first, last = names[0], names[-1]
    return any(
        change(kind, rows.get(first), rows.get(last)) == "regressed" for rows in by_persona.values()
    )


def _question(key: tuple, by_persona: Mapping, names: Sequence[str]) -> dict:
    kind, problem, sample = key
    row = next(row for rows in by_persona.values() for row in rows.values())
    return {
        "kind": kind,
        "problem": problem,
        "sample": sample,
        "prompt": row["prompt"],
        "answer": row["answer"],
        "flips": [_flips(kind, by_persona, name) for name in names],
    }


def _flips(kind: str, by_persona: Mapping, policy: str) -> bool:
    """Whether the policy's outcome differs between personas."""
    asked = [rows for persona, rows in by_persona.items() if persona is not None]
    return {0, 1} <= {outcome(kind, rows.get(policy)) for rows in asked}

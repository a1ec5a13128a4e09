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
    names = list(policies)
    first, last = names[0], names[-1]
    result: dict = {"policies": names, "kinds": [], "questions": [], "pairs": []}

    def place(item: tuple) -> tuple:
        (_, sample), people = item
        became = [change(kind, rows, first, last) for rows in people.values()]
        return "regressed" not in became, sample

    for kind, questions in _questions(policies).items():
        ordered = sorted(questions.items(), key=place)
        each = [(key, persona) for key, people in ordered for persona in people]
        places: dict[tuple, int] = {}
        shown, left = 0, characters
        for key, persona in each[:pairs]:
            if left <= 0:
                break
            if key not in places:
                places[key] = len(result["questions"])
                result["questions"].append(_question(kind, key, questions[key], names))
            rows = [questions[key][persona].get(name) for name in names]
            left -= sum(len(row["completion"]) for row in rows if row)
            answers = [row and {field: row.get(field) for field in _SHOWN} for row in rows]
            pair = {"question": places[key], "persona": persona, "answers": answers}
            result["pairs"].append(pair)
            shown += 1
        counted = {"name": kind, "outcomes": _words(kind), "pairs": len(each), "shown": shown}
        result["kinds"].append(counted)
    return result if result["pairs"] else None


def changes_section(policies: Mapping[str, Sequence[Mapping]]) -> dict:
    """How many answers changed from the first to the last policy, by persona, over all rows."""
    names, tables = list(policies), []
    first, last = names[0], names[-1]
    for kind, questions in _questions(policies).items():
        counts: dict[str | None, dict[str, int]] = {}
        for by_persona in questions.values():
            for persona, answers in by_persona.items():
                if name := change(kind, answers, first, last):
                    counts.setdefault(persona, dict.fromkeys(_CHANGES.values(), 0))[name] += 1
        good, bad = _words(kind)
        became = (f"regressed ({good} → {bad})", f"improved ({bad} → {good})")
        numbers = ("answers", *became, f"{good} in both", f"{bad} in both")
        rows = [
            [persona_link(persona, kind), sum(row.values()), *row.values()]
            for persona, row in counts.items()
        ]
        columns = {"persona": ""} | dict.fromkeys(numbers, "d")
        tables.append(table(columns, rows, kind.replace("_", "-")))
    return section("changes", tables if len(names) > 1 else [], first=first, last=last)


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
    of_kind = list(_questions(policies).get(kind, {}).items())
    of_kind.sort(key=lambda item: (item[0][1], not _flips(kind, item[1], first)))
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


# (outcome before, after) -> what became of an answer
_CHANGES = {(1, 0): "regressed", (0, 1): "improved", (1, 1): "kept", (0, 0): "never"}


def outcome(kind: str, row: Mapping | None) -> int | None:
    """1, 0, or None where there is no answer or no verdict."""
    value = row and row.get("in_style" if kind == "role_play" else "correct")
    return None if value is None else int(value)


def change(kind: str, rows: Mapping[str, Mapping], before: str, after: str) -> str:
    """regressed, improved, kept or never; "" if one of the outcomes is not known.

    `rows`: the answers to one prompt by policy, of which `before` and `after` are two.
    """
    return _CHANGES.get((outcome(kind, rows.get(before)), outcome(kind, rows.get(after))), "")


def _marked(kind: str, row: Mapping | None) -> str | None:
    """A completion and, in brackets, its outcome if that is known."""
    known = outcome(kind, row)
    if row is None or known is None:
        return row and row["completion"]
    return f"{row['completion']} ({_words(kind)[1 - known]})"


def _words(kind: str) -> tuple[str, str]:
    return ("in style", "off style") if kind == "role_play" else ("right", "wrong")


def _questions(policies: Mapping[str, Sequence[Mapping]]) -> dict[str, dict[tuple, dict]]:
    """kind -> (problem, sample) -> persona -> policy -> row, in the order of the rows."""
    questions: dict = {}
    for name, rows in policies.items():
        for row in rows:
            of_kind = questions.setdefault(row["task"], {})
            by_persona = of_kind.setdefault((row["problem"], row["sample"]), {})
            by_persona.setdefault(row["persona"], {})[name] = row
    return questions


def _question(kind: str, key: tuple, by_persona: Mapping, names: Sequence[str]) -> dict:
    row = next(row for rows in by_persona.values() for row in rows.values())
    question = {"kind": kind, "problem": key[0], "sample": key[1], "prompt": row["prompt"]}
    flips = [_flips(kind, by_persona, name) for name in names]
    return question | {"answer": row["answer"], "flips": flips}


def _flips(kind: str, by_persona: Mapping, policy: str) -> bool:
    """Whether the policy's outcome differs between personas."""
    asked = [rows for persona, rows in by_persona.items() if persona is not None]
    return {0, 1} <= {outcome(kind, rows.get(policy)) for rows in asked}

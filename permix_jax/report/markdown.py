"""A report's content as Markdown."""

import re
from collections.abc import Mapping

from permix_jax.report.completions import outcome
from permix_jax.report.tables import escape_markdown, markdown_table

_PAIRS_SHOWN = 8  # of the browser's, of each kind


def markdown_page(report: Mapping) -> str:
    """The tables, rankings and a few completions; charts are left out."""
    parts = [f"# {escape_markdown(report['title'])}", " · ".join(report["facts"])]
    for section in report["sections"]:
        parts += [f"## {section['title']}", section["note"]]
        for block in section["blocks"]:
            if "columns" in block:
                title = block["title"] and f"### {escape_markdown(block['title'])}"
                parts += [title, markdown_table(block)]
    if report["completions"]:
        parts += _completions(report["completions"])
    return "\n\n".join(part for part in parts if part) + "\n"


def _completions(browser: Mapping) -> list[str]:
    parts = ["## Completions"]
    for kind in browser["kinds"]:
        of_kind = [
            (question, pair)
            for pair in browser["pairs"]
            if (question := browser["questions"][pair["question"]])["kind"] == kind["name"]
        ]
        shown = of_kind[:_PAIRS_SHOWN]
        parts.append(
            f"{kind['name'].replace('_', '-')}: {len(shown)} of {kind['pairs']} pairs of question "
            f"and persona; report.json and report.html have {kind['shown']}."
        )
        for question, pair in shown:
            persona = "no persona" if pair["persona"] is None else pair["persona"]
            parts.append("### " + escape_markdown(f"{question['problem']}, {persona}"))
            parts.append(_fenced(question["prompt"]))
            for name, answer in zip(browser["policies"], pair["answers"], strict=True):
                if answer is None:
                    continue
                known = outcome(kind["name"], answer)
                marks = [name] if known is None else [name, kind["outcomes"][1 - known]]
                marks += ["truncated"] if answer["truncated"] else []
                parts += [f"{escape_markdown(', '.join(marks))}:", _fenced(answer["completion"])]
    return parts


def _fenced(text: str) -> str:
    """A code block whose fence is longer than any in the text."""
    longest = max(map(len, re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}text\n{text}\n{fence}"

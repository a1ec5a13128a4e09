"""The prompts for judges, and the score in a reply.

Judges are asked to end in the line "Final score: N" (FINAL_LINE). That line, the rubrics' own
"Therefore, the final score is N", JSON, tags such as [[N]] and a line that is nothing but the score
are read. Any other reply has no score, and is counted as such.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import NamedTuple

from permix_jax.personagym.benchmark import EXAMPLE_SLOTS, RUBRIC_SLOTS, Answer, Benchmark

NO_EXAMPLES = "No score examples are given: grade by the evaluation criteria above."
# Ours, behind the published rubric, which ends in "Evaluation Form:"; `parse_score` reads it.
FINAL_LINE = (
    "\nGive your reasons first. Then end with one line that holds only the final score, a whole "
    "number from 1 to 5, in this form:\nFinal score: N\n"
)

# A whole number, with all that makes it another one: "4.5", "3-4", "3 or 4", "4/10", "80%", "4+".
# (?>...) never gives back what it took, so "4.5" cannot match as "4".
_BETWEEN = r"\s?\(?(?:[/~\u2010-\u2015\u2212-]|or|to|and|(?:out )?of)\s?"
_VALUE = (
    rf"(?P<value>(?>[0-9]+(?:[.,][0-9]+)*(?:{_BETWEEN}[0-9]+)*[%+]?))"
    r"(?!\w|,? (?:or|to|and|out|of)\b)"
)
_ON_THE_SCALE = re.compile(r"([1-5])(?:\.0+)?(?:\s?\(?(?:/|out of)\s?5)?")
_LINK = r"(?: ?\([^()]{0,40}\))?[\s:=|\"'([<]*(?:(?:is|of)[\s:\"']*)?"  # "Final score (1-5): "
_FINAL = re.compile(
    rf"\W*(?:(?:therefore|thus|hence|so|overall),? )?(?:the |my )?final[ _]score{_LINK}{_VALUE}",
    re.IGNORECASE,
)
_TAGGED = re.compile(
    rf"(?:\[\[|\[RESULT\]|<(?:answer|result|score)>|\\boxed\{{)\s*{_VALUE}", re.IGNORECASE
)
_FIELD = re.compile(
    rf"[\"'](?:final[ _]?)?(?:score|rating)[\"']\s*:\s*[\"']?{_VALUE}", re.IGNORECASE
)
_ALONE = re.compile(
    rf"\W*(?:(?:final |overall )?(?:score|rating|grade|verdict|evaluation|overall){_LINK})?{_VALUE}"
    r"[^\w+-]*",
    re.IGNORECASE,
)
# A response may say "Final score: 5". A judge's quote of it is no verdict.
_QUOTED = re.compile(r"^>.*$|(?<=\w )(?:\"[^\"]{3,}\"|\u201c[^\u201d]{3,}\u201d)", re.MULTILINE)
_MARKUP = re.compile(r"[*`#$]|(?<!\w)_+|_+(?!\w)")


class Prompt(NamedTuple):
    """One turn for a judge; `system` may be empty."""

    system: str
    user: str


def score_prompt(benchmark: Benchmark, answer: Answer, examples: str | None) -> Prompt:
    """The task's published rubric with the answer; with `examples` None it says there are none."""
    given = answer._asdict() | {"score_example": NO_EXAMPLES if examples is None else examples}
    values = {slot: given[slot] for slot in RUBRIC_SLOTS}
    return Prompt(benchmark.system_prompt, fill(benchmark.rubrics[answer.task], values))


def example_prompt(benchmark: Benchmark, answer: Answer) -> Prompt:
    """Asks for a response of each score to the answer's question. It does not show the response."""
    given = answer._asdict() | {"rubric": benchmark.rubrics[answer.task]}
    return Prompt("", fill(benchmark.example_prompt, {slot: given[slot] for slot in EXAMPLE_SLOTS}))


def fill(template: str, values: Mapping[str, str]) -> str:
    """Puts each value in its {slot}. Unlike in str.format, braces in a value stay as they are."""
    slots = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({slots})\}}", lambda match: values[match[1]], template)


def has_all_scores(examples: str) -> bool:
    """Whether each of "Score 1" to "Score 5" occurs."""
    return all(re.search(rf"\bscore\W{{0,3}}{score}\b", examples, re.I) for score in range(1, 6))


def parse_score(reply: str, truncated: bool = False) -> int | None:
    """The score of a judge's reply, 1 to 5; None where there is none, or not clearly one.

    The first form that occurs decides: a JSON field `score` or `rating`; "final score" at the
    beginning of a sentence, and tags; a first or last line that is nothing but a score. All scores
    of that form must be the same. The last line of a `truncated` reply does not count, because it
    may be the score of one criterion.
    """
    text = unicodedata.normalize("NFKC", without_thinking(reply))
    text = _MARKUP.sub("", _QUOTED.sub("", text))
    lines = [" ".join(line.split()) for line in text.splitlines() if line.strip()]
    sentences = [part for line in lines for part in re.split(r"(?<=[.!?]) ", line)]
    ends = lines[:1] if truncated else lines[:1] + lines[-1:]
    forms = (
        _FIELD.finditer("\n".join(lines)),
        (*map(_FINAL.match, sentences), *_TAGGED.finditer("\n".join(lines))),
        map(_ALONE.fullmatch, ends),
    )
    for form in forms:
        values = [_ON_THE_SCALE.fullmatch(match["value"]) for match in form if match]
        if values:
            scores = {value and int(value[1]) for value in values}
            return scores.pop() if len(scores) == 1 else None
    return None


def without_thinking(reply: str) -> str:
    """The reply behind a reasoning model's <think> block; nothing if that never ends."""
    reply = re.split(r"</think(?:ing)?>", reply)[-1]
    return re.split(r"<think(?:ing)?>", reply)[0]

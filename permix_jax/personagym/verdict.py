"""Reads the score of a judge's reply.

Judges are asked to end in the line "Final score: N" (`judge_prompts.FINAL_LINE`). That line, the
rubrics' own "Therefore, the final score is N", JSON, tags such as [[N]] and a line that is nothing
but the score are read. Any other reply has no score, and is counted as such.
"""

import re
import unicodedata

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

"""Reads the score that a judge gives, out of all that it writes around it.

Only the judge's own verdict counts: its thinking, what it quotes or reports ("the response says
that ..."), and negated or hypothetical scores ("not a 4", "a 5 would need ...") are passed over.
"""

import re
import unicodedata
from collections.abc import Iterator

_WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBER = rf"(?:-?\d+(?:[.,]\d+)?(?![\w%]|[.,]\d)|(?:{'|'.join(_WORDS)})\b)"
# With what would make it another number: "4 (four)", "4-5", "4 or 5", "4+", "4/10", "4 out of 10".
_VALUE = (
    rf"(?P<value>{_NUMBER})(?:\s*\((?P<again>{_NUMBER})\))?"
    rf"(?P<range>\s*(?:-|~|to|or|and|,)\s*(?:an?\s+)?{_NUMBER}|\+)?"
    rf"(?:\s*(?:/|out of|of)\s*(?:a\s+)?(?:possible\s+)?(?P<top>{_NUMBER}))?"
)
# What may follow a score: punctuation, a line's end, or a word that goes on about it. It is to
# tell "a score of 4 because" from "the score of four players".
_END = (
    r"(?=[ \t]*(?:[^\w \t]|$|(?:because|for|as|since|due|points?|stars?|given|which|based|and|with|"
    r"on|in|but|so|i|is|was|seems|feels|fits|reflects|here|overall|rather|instead|would|from|of|"
    r"to|that|it)\b))"
)
_NOUN = r"(?:score|rating|grade|mark|verdict|evaluation)"
_FILLER = (
    r"(?:[\s,]+(?:for|of|to|this|the|that|response|answer|here|therefore|thus|hence|i|would|will|"
    r"should|must|give|assign|assigned|given|it|be|is|was|at|as|an?|equals?|comes))*?"
)
_LINK = r"""(?:[\s:=>|"'(\[{]|-(?!\d))*"""
_SAYS = rf"{_LINK}(?:(?:is|of|at|as|to|an?|be|would|should|will)\b{_LINK})*"
_DEGREE = r"(?:(?:solid|strong|clear|firm|full|high|low|weak|perfect|well-earned)\s+)?"

_FLAGS = re.IGNORECASE
_FINAL = re.compile(
    rf"\b(?:(?:final|overall|total)\s+{_NOUN}|verdict|overall)\b{_FILLER}{_SAYS}{_VALUE}{_END}",
    _FLAGS,
)
_ALONE = re.compile(
    rf"^\W*(?:(?:the\s+|my\s+)?{_NOUN}|answer|result)?{_SAYS}{_VALUE}"
    r"\s*(?:stars?|points?)?[^\w+]*$",
    _FLAGS,
)
_OPENING = re.compile(rf"^[^\w(-]*{_VALUE}\s*(?:[-:,]\s|\.\s|because\b)", _FLAGS)
_GIVEN = (
    re.compile(
        r"\b(?:i|we)(?:'d|'ll)?\s(?:[\w']+\s){0,2}?"
        r"(?:give|rate|assign|award|grade|score|say|choose|pick|select|go with|settle on)\b"
        rf"(?:\s+[\w']+){{0,6}}?\s+{_DEGREE}{_VALUE}{_END}",
        _FLAGS,
    ),
    re.compile(
        r"\b(?:give|giv|rat|assign|award|grad|deserv|earn|merit|warrant|receiv|get|justif)\w*"
        rf"(?:\s+[\w']+){{0,6}}?\s+(?:an?|(?:{_NOUN}\s+(?:of|as|at)))\s+{_DEGREE}{_VALUE}{_END}",
        _FLAGS,
    ),
    re.compile(
        rf"\b(?:rated|scored|graded|scores|rates)\s+(?:(?:as|at|an?)\s+)*{_VALUE}{_END}", _FLAGS
    ),
)
_NAMED = re.compile(rf"\b{_NOUN}{_SAYS}{_DEGREE}{_VALUE}{_END}", _FLAGS)
_SCALED = re.compile(rf"(?<![\w./-]){_VALUE}(?(top)|\s*stars?\b)", _FLAGS)
_IS_A = re.compile(
    rf"\b(?:is|it's|that's|as|at)\s+(?:an?|clearly)\s+{_DEGREE}{_VALUE}{_END}", _FLAGS
)
_BOLD = re.compile(rf"\*\*\s*{_VALUE}\s*\W{{0,2}}\*\*", _FLAGS)

_FIELD = re.compile(
    rf"""["'](?:final|overall)?[ _]?(?:score|rating|grade)["']\s*:"""
    rf"""\s*["']?(?P<found>{_VALUE})["']?""",
    _FLAGS,
)
_BOXED = re.compile(r"\\boxed\s*\{(?:\s*\\\w+\s*\{)?([^{}]*)\}+")
_SCALE_NAMED = re.compile(
    r"\(?\b(?:on|in|using)\s+(?:a|the)\s+(?:\w+\s+)?scale(?:\s+(?:of|from))?"
    r"\s+\d+\s*(?:-|to)\s*\d+\)?"
    r"|\((?:scale\s*(?:of|from|:)?\s*)?(?:\d+\s*(?:-|to)\s*\d+|out of \d+|/\s*\d+|max\w*\s*\d+)\)",
    _FLAGS,
)
# How the benchmark heads the score examples in a judge's prompt: an echo of one is no verdict.
_EXAMPLE = re.compile(r"\bscore\s*\d\s*:\s*response\s*-", _FLAGS)
_CLAUSE = re.compile(
    r"[,;:()\n]|[.!?](?=\s)|\b(?:but|so|therefore|thus|hence|because|although|though|while)\b",
    _FLAGS,
)
_UNREAL = re.compile(
    r"\b(?:not|cannot|never|nor|if|unless|could|might|may|would have|rather than|instead of|"
    r"short of|far from|above|below|between|than|why|whether|without|towards?|criteri\w+)\b|n't\b",
    _FLAGS,
)
_NEEDS = re.compile(
    r"\s*(?:\w+\s+)?(?:would|could|might)\s+(?:have|need|require|take|be|mean|only)\b"
    r"|\s*(?:requires|needs|means|demands)\b",
    _FLAGS,
)
# Characters at most, so that the time is linear in the text whatever is in it.
_SENTENCE = 500
_LINE = 100
_SUPPOSED = re.compile(r"\b(?:if|had|were|unless)\b.*\b(?:would|could|might)\b", _FLAGS | re.DOTALL)
_REPORTED = re.compile(
    r"\b(?:response|answer|persona|text|author|user|it|he|she|they)\s+(?:\w+ly\s+|itself\s+|also\s+)?"
    r"(?:claim|say|state|assert|tell|ask|demand|insist|end|conclude|include|contain|tries|try|suggest)",
    _FLAGS,
)


def parse_score(
    reply: str, truncated: bool = False, lowest: int = 1, highest: int = 5
) -> int | None:
    """The whole score of a judge's reply; None where it gives none, or not clearly one.

    The first rule that finds anything decides. A "final" or overall score, \\boxed{} and a JSON
    field: the last one, since the rubric asks for it at the end. Then, where all finds agree: a
    first or last line that is nothing but a score; a score at the very beginning; what the judge
    says it gives; a score by that name; "4/5"; "is a 4"; a number in bold. A score that is no
    whole number, or off the scale of `lowest` to `highest`, is none.

    Of a `truncated` reply only a "final" score and a first line that is nothing but a score count:
    the verdict may be what was cut off, and the numbers before it those of the rubric's criteria.
    """
    text = _own_words(reply)
    plain = _without_markup(text)

    def found(rule: re.Pattern, where: str) -> Iterator[int | None]:
        for match in rule.finditer(where):
            if not _passed_over(where, match):
                yield _score(match, lowest, highest)

    finals = list(found(_FINAL, plain))
    if finals:
        return finals[-1]

    lines = [line for line in plain.split("\n") if line.strip()]
    ends = {line for line in lines[:1] + ([] if truncated else lines[-1:]) if len(line) <= _LINE}
    rules = (
        lambda: [score for line in ends for score in found(_ALONE, line)],
        lambda: [score for score in found(_OPENING, plain.lstrip()[:_LINE]) if score != 1],
        lambda: [score for rule in _GIVEN for score in found(rule, plain)],
        lambda: list(found(_NAMED, plain)),
        lambda: list(found(_SCALED, plain)),
        lambda: list(found(_IS_A, plain)),
        lambda: list(found(_BOLD, text)),
    )
    for rule in rules[:1] if truncated else rules:
        scores = set(rule())
        if scores:
            return scores.pop() if len(scores) == 1 else None
    return None


def without_thinking(reply: str) -> str:
    """The reply behind a reasoning model's <think> block; nothing if that never ends."""
    reply = re.split(r"</think(?:ing)?>", reply)[-1]
    return re.split(r"<think(?:ing)?>", reply)[0]


def _own_words(reply: str) -> str:
    """Without thinking and quotes; JSON fields and boxes as the sentence that they stand for."""
    text = _squeezed(unicodedata.normalize("NFKC", without_thinking(reply)))
    text = re.sub("[\u2018\u2019]", "'", text)
    text = re.sub("[\u2010-\u2015\u2212]", "-", text)
    text = _FIELD.sub(r"\nFinal score: \g<found>\n", text)
    text = _BOXED.sub(r"\nFinal score: \1\n", text)
    text = re.sub(r"(?m)^>.*$", "", text)
    text = re.sub("\u201c[^\u201d]*(?:\u201d|$)", _unless_a_line, text)
    text = "\n\n".join(
        re.sub(r'"[^"]*(?:"|$)', _unless_a_line, part) for part in text.split("\n\n")
    )
    return re.sub(r"(?<!\w)'(?=\w)[^\n]{0,300}?'(?!\w)", _unless_unscored, text)


def _squeezed(text: str) -> str:
    """Runs of spaces, of blank lines and of one mark cut short, so that no rule runs for long."""
    text = "\n".join(" ".join(line.split()) for line in text.splitlines())
    return re.sub(r"([^\w\s])\1{3,}", r"\1\1\1", re.sub(r"\n{3,}", "\n\n", text))


def _unless_a_line(quote: re.Match) -> str:
    """Drops a quote, if it is more than one number and does not make up its whole line."""
    inner = quote[0].strip('"\u201c\u201d ')
    before = quote.string[max(0, quote.start() - _LINE) : quote.start()].rpartition("\n")[2]
    behind = quote.string[quote.end() : quote.end() + _LINE].partition("\n")[0]
    alone = not re.search(r"\w", before + behind) and "\n" not in quote[0]
    return inner if alone or re.fullmatch(_VALUE + r"\W*", inner, _FLAGS) else "..."


def _unless_unscored(quote: re.Match) -> str:
    """In single quotes, which may be apostrophes, only a score is dropped."""
    return "..." if re.search(rf"\b{_NOUN}\b", quote[0], _FLAGS) else quote[0]


def _without_markup(text: str) -> str:
    text = re.sub(r"\\(?:text|textbf|mathbf|mathrm)\s*\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"\\[()\[\],;]|[*`#$]|__|(?<!\w)_|_(?!\w)", "", text)
    return _SCALE_NAMED.sub(" ", _EXAMPLE.sub(" ", text))


def _passed_over(text: str, match: re.Match) -> bool:
    """Whether the score is negated, compared with, supposed or reported, not given."""
    before = text[max(0, match.start("value") - _SENTENCE) : match.start("value")]
    sentence = re.split(r"[.!?]\s|\n", before)[-1]
    clause = _CLAUSE.split(before)[-1]
    return bool(
        _UNREAL.search(clause)
        or _SUPPOSED.search(sentence)
        or _REPORTED.search(sentence)
        or _NEEDS.match(text, match.end())
    )


def _score(match: re.Match, lowest: int, highest: int) -> int | None:
    value = _number(match["value"])
    doubtful = match["range"] or (match["again"] and _number(match["again"]) != value)
    if doubtful or (match["top"] and _number(match["top"]) != highest):
        return None
    return int(value) if value in range(lowest, highest + 1) else None


def _number(text: str) -> float:
    word = text.lower()
    return float(_WORDS.index(word)) if word in _WORDS else float(word.replace(",", "."))

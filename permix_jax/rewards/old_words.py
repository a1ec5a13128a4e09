r"""Answers in words: names, choices, dates, times of day; and words around a number."""

import re
from fractions import Fraction

from permix_jax.rewards.latex import Tokens, is_word, word

_FILLERS = {"a", "an", "the", "is", "it", "its", "of", "that", "real"}
_NOTHING = {
    "no solution", "no solutions", "none", "no real solutions", "no real solution", "empty set",
    "there are no solutions", "\\varnothing", "\\{ \\}", "there is no solution",
}  # fmt: skip
_EVERYTHING = {"all numbers", "all reals", "all numbers x", "\\mathbb R", "all x", "\\R"}
# A word behind a number that makes another number, or another statement, of it.
CHANGES_A_NUMBER = {
    "hundred", "thousand", "million", "billion", "trillion", "dozen", "half", "halves", "thirds",
    "quarters", "less", "more", "not", "or", "and", "than", "least", "most", "between", "about",
    "approximately", "nearly", "almost", "over", "under", "if", "times", "squared", "cubed",
    "percent", "negative", "minus", "plus", "per", "am", "pm", "point", "except", "score", "pair",
    "pairs", "tenths", "hundredths", "only", "base", "mod", "factorial", "to", "from", "no",
    "never", "zero", "oclock", "infinitely",
}  # fmt: skip
_LEADS_TO_A_VALUE = {"is", "are", "be", "equals", "answer", "gives", "exactly"}
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_CHOICE = re.compile(r"\(?([A-Z])\)?")
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?P<day>[0-9]{1,2})(?:st|nd|rd|th)?"
_YEAR = r"(?:,?\s*(?P<year>[0-9]{4}))?"
_DATES = (
    re.compile(rf"(?:the\s+)?{_MONTH}\s*(?:the\s+)?{_DAY}{_YEAR}", re.IGNORECASE),
    re.compile(rf"(?:the\s+)?{_DAY}\s*(?:of\s+)?{_MONTH}{_YEAR}", re.IGNORECASE),
    re.compile(r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"),
)
_CLOCK = re.compile(
    r"([0-9]{1,2})(?::([0-9]{2})(?::([0-9]{2}))?)?\s*(?:([ap])\.?\s?m)?", re.IGNORECASE
)
_COMMANDS = re.compile(r"\\(?:text|mbox|textbf|mathrm|textrm|textit)\b|\\[,;:! ]|[{}$]")


def same_words(tokens: Tokens, gold: Tokens) -> bool:
    """Whether two texts say the same, word by word, without articles and punctuation."""
    one, two = _spoken(tokens), _spoken(gold)
    return one == two or (one in _NOTHING and two in _NOTHING)


def has_words(tokens: Tokens) -> bool:
    return any(is_word(token) for token in tokens)


def everything(tokens: Tokens) -> bool:
    """Whether "all real numbers" are meant."""
    return _spoken(tokens) in _EVERYTHING


def choice(tokens: Tokens) -> str:
    """The letter of a choice that is all of an answer: C, (C); or ""."""
    match = _CHOICE.fullmatch("".join(tokens))
    return match[1] if match else ""


def stated_choice(tokens: Tokens) -> str:
    """The letter that an answer to a multiple-choice question begins with: "(C) 5", "C. 5"."""
    text = "".join(word(token) if is_word(token) else token for token in tokens)
    if any(is_word(token) and word(token) in ("or", "and") for token in tokens):
        return ""
    match = re.match(r"\(([A-Za-z])\)|([A-Z])(?=[).:]|$)", text)
    return (
        (match[1] or match[2]).upper() if match and not re.search(r",\(?[A-Z]\)?,?$", text) else ""
    )


def date(text: str) -> tuple[int, int, int] | None:
    """(month, day, year or 0) of "March 5th, 1912", "5 March" and "1912-03-05"."""
    text = " ".join(_COMMANDS.sub(" ", text).split()).strip(" .")
    for pattern in _DATES:
        if match := pattern.fullmatch(text):
            month = match["month"]
            number = int(month) if month.isdigit() else _MONTHS.index(month[:3].lower()) + 1
            return number, int(match["day"]), int(match["year"] or 0)
    return None


def clock(text: str) -> tuple[Fraction, str] | None:
    """(hours, "a", "p" or "") of "3:30", "3:30 p.m." and "3 pm"; None for what is no time."""
    text = re.sub(r"\s*:\s*", ":", " ".join(_COMMANDS.sub(" ", text).split())).strip(" .")
    match = _CLOCK.fullmatch(text)
    if match is None or not (match[2] or match[4]):
        return None
    hours, minutes, seconds = (int(match[group] or 0) for group in (1, 2, 3))
    if hours > 24 or minutes > 59 or seconds > 59:
        return None
    return Fraction(3600 * hours + 60 * minutes + seconds, 3600), (match[4] or "").lower()


def without_words_around(tokens: Tokens) -> Tokens:
    """The value in "The answer is 5" or "7 apples"; `tokens` themselves where there is no such."""
    spoken = {word(token) for token in tokens if is_word(token)}
    # What a word of another language makes of a number is not known here: 5 万 is 50,000.
    if not spoken or spoken & CHANGES_A_NUMBER or not all(map(str.isascii, spoken)):
        return tokens
    start, end = 0, len(tokens)
    while start < end and (is_word(tokens[start]) or (start and tokens[start] in (":", ","))):
        start += 1
    if start and (not spoken & _LEADS_TO_A_VALUE or tokens[start : start + 1] in (("_",), ("=",))):
        return tokens  # "March 5" is not 5
    while start < end and (is_word(tokens[end - 1]) or tokens[end - 1] in ("/", ".", "!")):
        end -= 1
    inner = tokens[start:end]
    return inner if inner and not has_words(inner) else tokens


def _spoken(tokens: Tokens) -> str:
    words = (word(token) if is_word(token) else token for token in tokens)
    return " ".join(w for w in words if w not in _FILLERS and w not in ".,-'\";:{}!()")

r"""Words: buys the verdicts on texts, dates, times of day, and values in a sentence."""

import re
from fractions import Fraction

from permix_jax.rewards.notation import Tokens, is_word, read
from permix_jax.rewards.vocabulary import VOCABULARY, listed, paired

CHANGES = listed("changes")
_FILLERS, _LEADS, _CONFIRMS, _REMARKS, _ROUNDED, _HARMLESS, _ORDERED, _CALENDAR = map(
    listed, "fillers leads confirms remarks rounded harmless ordered calendar".split()
)
_NOTHING = re.compile(
    r"none|(?:no|zero|without)(?: (?:such|real|integer|positive|valid|possible|solutions?|values?|"
    r"roots?|numbers?|pairs?|triples?|functions?|polynomials?|x|n|to|equation|any))+|(?:empty|"
    r"null) set|"
    r"\\varnothing|keine (?:reellen? )?lösung(?:en)?|无(?:实数)?解|解なし|solutions? do(?:es)? not|"
    r"has no solutions?|нет (?:действительных )?решений|"
    r"(?:pas de|aucune?) solutions?(?: réelles?)?|(?:sin|ninguna|no hay) solución|"
    r"(?:sin|no hay) soluciones|sem solução|"
    r"aucune?|ningun[ao]|nessuna soluzione(?: reale)?"
)
_UNDEFINED = {"dne", "does not", "limit does not", "not exist", "undefined", "not defined"}
_EVERYTHING = re.compile(
    r"(?:all|any|every) (?:numbers?|reals?|x|values? x|x \\in \\R|numbers? x)|x \\in \\R|\\R"
)
_INFINITE = re.compile(
    r"(?:infinity|infinite|infinitely many|infinite number)(?: solutions?| values?| many)*"
)
_NUMBERS = {word: n for n, word in enumerate(VOCABULARY["numbers"].split())}
_NUMBERS |= {
    w: 10 * n
    for n, w in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}
_PARTS = {
    w: n
    for n, w in enumerate("half third quarter fifth sixth seventh eighth ninth tenth".split(), 2)
}
_NUMBERS |= {word: int(n) for word, n in paired("numbers_elsewhere").items()}
_SCALES = {name: int(n) for name, n in paired("scales").items()}
_PARTS |= {"fourth": 4, "halve": 2}
_SPOKEN, _SAME_IN = paired("spoken"), paired("yes_and_no")
_CHANGING_SIGNS = re.compile(
    "[万億亿千百十半]|тыс|милл|millón|millones|million|mille|mil$|dutzend|hundert|tausend"
)
_LEADING = re.compile("[^不非没错]*[为是得了的]")  # 答案为 5
_NEGATIONS = ("un", "in", "im", "ir", "non", "dis")
_MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = (
    r"(?P<month>jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?"
    r"|sept?(?:ember)?|oct(?:ober)?|nov(?:ember)?|dec(?:ember)?)\.?"
)
_DAY = r"(?P<day>[0-9]{1,2})(?:\^?\{?(?:st|nd|rd|th)\}?)?\.?"
_YEAR = r"(?:,?\s*(?P<year>[0-9]{4}))?"
_WEEKDAY = r"(?:(?:mon|tues|wednes|thurs|fri|satur|sun)day,?\s+)?(?:the\s+)?"
_DATES = [
    re.compile(form, re.IGNORECASE)
    for form in (
        rf"{_WEEKDAY}{_MONTH}\s*(?:the\s+)?{_DAY}{_YEAR}",
        rf"{_WEEKDAY}{_DAY}\s*(?:of\s+)?{_MONTH}{_YEAR}",
        r"(?P<year>[0-9]{4})[-/](?P<month>[0-9]{1,2})[-/](?P<day>[0-9]{1,2})",
    )
]
_CLOCK = re.compile(
    r"(?:at\s+)?([0-9]{1,2})(?:\s?[:h.]\s?([0-9]{2})(?::([0-9]{2}))?)?\s*(?:([ap])\.?\s?m\.?|(uhr|o'clock|h|hours))?"
    r"(?:\s*in\s+the\s+(morning|afternoon|evening))?|(?:12(?::00)?\s*)?(noon|midnight)",
    re.IGNORECASE,
)
_COMMANDS = re.compile(
    r"\\(?:text|mbox|textbf|mathrm|textrm|textit|displaystyle|fbox|boxed|mathbf)\b|\\[,;:! ]|[{}$]"
)


def said(tokens: Tokens) -> str:
    """What a text says, equal for texts that people read alike: no articles, no punctuation."""
    words = [t[1:].casefold() if is_word(t) else t for t in tokens]
    if any(map(is_word, tokens)) and all(
        is_word(t) or t in "{}.,'\";:!-()" or t.isalnum() for t in tokens
    ):
        words = [_calendar(w) for w in words if w not in _FILLERS and w not in ".,'\";:!-()"]
    text = re.sub(r"\{ (\S+) \}", r"\1", " ".join(words))
    for form, canonical in (
        (_INFINITE, "\\infty"),
        (_EVERYTHING, "\\R"),
        (_NOTHING, "\\varnothing"),
    ):
        if form.fullmatch(text):
            return canonical
    text = _SPOKEN.get(text.replace(" ", "_"), text)
    text = _SAME_IN.get(text, text)
    return "undefined" if text in _UNDEFINED else text.replace("infinity", "\\infty")


def _calendar(word: str) -> str:
    """A month or a day by its first letters, a long word as it is."""
    found = [name for name in _CALENDAR if name.startswith(word) and len(word) > 2]
    return found[0] if len(found) == 1 else word


def numeral(text: str) -> Fraction | None:
    """The number that words are ("twelve", "forty eight", "three quarters")."""
    *first, last = text.split() or [""]
    if not first and last in _SCALES and last.isascii():
        return Fraction(_SCALES[last])  # a dozen
    if first and last in _SCALES and (count := numeral(" ".join(first))):
        return count * _SCALES[last]
    if (
        first
        and (part := _PARTS.get(last.removesuffix("s")))
        and (count := numeral(" ".join(first)))
    ):
        return count / part
    values = [_NUMBERS.get(word) for word in (*first, last)]
    if (
        None in values
        or len(values) > 2
        or (len(values) == 2 and (values[0] < 20 or values[1] > 9))
    ):
        return None
    return Fraction(sum(values))


def changes(words: list[str]) -> bool:
    """Whether words beside a number make another number, or another statement, of it."""
    return bool(set(words) & CHANGES) or any(map(_CHANGING_SIGNS.search, words))


def value(tokens: Tokens, known: frozenset[str] = frozenset()) -> Tokens:
    """The value in "The answer is 5" or "5 (approximately)"; all tokens where there is no such.

    `known`: words of the problem, any of which may stand before the value ("rank 2").
    """
    start, end = 0, len(tokens)
    while start < end and (is_word(tokens[start]) or (start and tokens[start] in (":", ",", "."))):
        start += 1
    before = [token[1:].casefold() for token in tokens[:start] if is_word(token)]
    if before[-1:] in (["about"], ["approximately"]) and known & _ROUNDED:
        before = []
    if before and numeral(" ".join(before)) is not None and tokens[start:][:1] == ("(",):
        return tokens[start:]  # five (5)
    led = not before or before[-1] in _LEADS or tokens[start - 1] == ":"
    led = led or _LEADING.fullmatch(before[-1])
    if not led and not (known and (len(before) > 1 or before[0] in known)):
        return tokens
    if set(before) & (CHANGES - {"is", "are", "was", "zero", "only", "point"}):
        return tokens
    while end > start and (is_word(tokens[end - 1]) or tokens[end - 1] in (".", "!", ")", "(")):
        end -= 1
    after = [token[1:].casefold() for token in tokens[end:] if is_word(token)]
    remark = "(" in tokens[end:] and numeral(" ".join(after))
    confirmed = after and set(after) <= _CONFIRMS and len(set(after) & _CONFIRMS) > 1
    if (
        not confirmed
        and not remark
        and not (after and set(after) <= _REMARKS and "(" in tokens[end:])
    ):
        end = len(tokens)
    return tokens[start:end] or tokens


def same(answer: str, gold: str, prompt: str) -> bool:
    """Whether a text says what another one says, with words beside it that change nothing."""
    answer = re.sub(r"^(?:An?|The) (?=[a-z]{3})", "", answer)
    truths = _truth(answer, prompt), _truth(gold, prompt)
    if None not in truths:
        return truths[0] == truths[1]
    one, two = (said(read(text) or ()).split() for text in (answer, gold))
    if one == two or not two:
        return bool(two)
    if not all(is_word(token) or token == "-" for token in read(gold) or "+"):
        return False
    plain = not "".join(read(gold) or ()).isupper()  # upwards, but not MATHS
    stems = [list(map(_stem, words)) for words in (one, two)]
    if plain and stems[0] == stems[1] or _opposites(one, two):
        return True
    if plain and sorted(stems[0]) == sorted(stems[1]) and len(one) < 4 and not set(one) & _ORDERED:
        return True  # conditionally convergent
    joined = "".join(one).casefold()
    if _SAME_IN.get(joined, _calendar(joined)) == "".join(two):  # JA
        return True
    if two == ["neither"]:
        return one[:1] == two
    if "quadrant" in prompt.casefold() and len(one) == 1:
        one = [_SPOKEN.get(f"{one[0]}_quadrant", one[0])]
        if one == two:
            return True
    if two in (["yes"], ["no"], ["true"], ["false"]):
        other = "no" if two == ["yes"] else "yes"
        return [_SAME_IN.get(w, w) for w in one[:1]] == two and not {"and", "or", other} & set(one)
    if one and set(one) < set(two) and set(two) - set(one) <= _HARMLESS - set(one):
        return True  # independent, where gold says linearly independent
    extra = [word for word in one if word not in two]
    if (
        len(two) > 3
        or len(extra) > 3
        or not set(two) <= set(one)
        or set(extra) & (CHANGES | {"than", "un"})
    ):
        return False
    if not extra:
        return len(one) == len(two) < 4 and not set(one) & _ORDERED
    if any(
        re.search(
            rf"(?i)\b{re.escape(w)}\w*\W*(?:,|or\b)|(?:,|or)\s+(?:an?\s+)?{re.escape(w)}\b", prompt
        )
        for w in extra
        if w not in _HARMLESS
    ):
        return False  # it is another of the answers that the problem offers
    known = prompt.casefold()
    return all(word.isalpha() and (word in known or word in _HARMLESS) for word in extra)


def _truth(text: str, prompt: str) -> bool | None:
    """Whether a text is all of a yes or a no, in any language; None: it says something else."""
    text = plain_words(text).casefold()
    if "true or false" in prompt.casefold():
        text = {"t": "true", "f": "false"}.get(text, text)
    text = _SAME_IN.get(text, text)
    said = {"yes": True, "true": True, "not false": True}
    return (said | {"no": False, "false": False, "not true": False}).get(text)


def _stem(word: str) -> str:
    """converg of converges and convergent; a short word without its s."""
    bare = re.sub("(?:e?s|ed|ing|e?nt|ence|e)$", "", word)
    return bare if len(bare) > 5 else word.rstrip("s")


def _opposites(one: list[str], two: list[str]) -> bool:
    """Whether "not independent" stands against "dependent"."""
    one, two = sorted((one, two), key=len)
    if len(one) != 1 or len(two) != 2 or two[0] != "not":
        return False
    return any(prefix + one[0] == two[1] or prefix + two[1] == one[0] for prefix in _NEGATIONS)


def date(text: str) -> tuple[int, int, int] | None:
    """(month, day, year or 0) of "March 5th, 1912", "5 March" and "1912-03-05"."""
    for pattern in _DATES:
        if match := pattern.fullmatch(plain_words(text)):
            month = match["month"]
            number = int(month) if month.isdigit() else _MONTHS.index(month[:3].lower()) + 1
            return number, int(match["day"]), int(match["year"] or 0)
    return None


def clock(text: str) -> tuple[Fraction, str] | None:
    """(hours, "a", "p" or "") of "3:30", "3:30 p.m." and "3 pm"; None for what is no time."""
    match = _CLOCK.fullmatch(re.sub(r"\s*:\s*", ":", plain_words(text)))
    if match is None:
        return None
    if match[7]:
        return Fraction(12), "p" if match[7].lower() == "noon" else "a"
    half = (match[4] or (match[6] and ("a" if match[6][0] in "mM" else "p")) or "").lower()
    if not (match[2] or half or (match[5] or "").lower() in ("uhr", "o'clock")) or (
        "." in match[0][:3] and not half
    ):
        return None
    hours, minutes, seconds = (int(match[group] or 0) for group in (1, 2, 3))
    if hours > 24 or minutes > 59 or seconds > 59:
        return None
    if half == "" and (hours > 12 or hours == 0 or match[1][0] == "0" and hours):
        half, hours = ("p" if 12 <= hours < 24 else "a"), hours % 12 or 12
    return Fraction(3600 * hours + 60 * minutes + seconds, 3600), half


def plain_words(text: str) -> str:
    """A text without the commands that set it."""
    return " ".join(_COMMANDS.sub(" ", text).split()).strip(" .*")


def digits(text: str) -> str:
    """The digits of a number in any base, without the zeros that change nothing."""
    whole, point, rest = text.upper().partition(".")
    rest = rest.rstrip("0")
    return (whole.lstrip("0") or "0") + (point + rest if rest else "")

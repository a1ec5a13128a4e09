r"""Where the answer stands: buys the verdicts on boxes, lines behind ####, and last numbers.

Completions are hostile text, for a policy finds whatever passes: each scan of one is linear in its
length.
"""

import re
from fractions import Fraction

_BRACE = re.compile(
    r"\\(?:boxed|fbox)\s*(?P<box>\{)"
    # TeX boxes one character where there are no braces: "$\boxed 9$".
    r"|\\(?:boxed|fbox)(?P<bare>[0-9]|\s[0-9A-Za-z])(?=\.?(?:\$|\\[)\]]))"
    r"|\\.|[{}]",
    re.DOTALL,
)
_NUMBER = re.compile(
    r"(?<![0-9A-Za-z_.,])(?:(?<![0-9)}\]] )-)?\\?\$?"
    r"(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)?(?:\.[0-9]+)?(?:/[0-9]+)?\\?%?"
)

_SPACING = re.compile(r"\\(?:left|right|displaystyle)(?![A-Za-z])|\\[,;:! ]|\\?\$|\s")
_THOUSANDS = re.compile(r"-?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_RATIONAL = re.compile(r"-?(?:[0-9]{0,40}\.[0-9]{1,40}|[0-9]{1,40}(?:/[1-9][0-9]{0,39})?)")


def stated_answer(text: str, last_number: bool = False) -> str | None:
    """What `extract_answer` finds, in a spelling that equal answers mostly share; None: nothing.

    Spaces, dollar signs, capitals and a full stop at the end do not count. A number is written as a
    fraction in lowest terms. Equal answers of other forms (1/2 and 2^{-1}) stay different.
    """
    answer = extract_answer(text, last_number)
    plain = _SPACING.sub("", answer or "").rstrip(".").casefold()
    number = plain.replace(",", "") if _THOUSANDS.fullmatch(plain) else plain
    return str(Fraction(number)) if _RATIONAL.fullmatch(number) else plain or None


def extract_answer(text: str, last_number: bool = False) -> str | None:
    r"""The answer that `text` states; None where it states none.

    The last balanced \boxed{...} or \fbox{...}; else the rest of the line after the last ####;
    else, if `last_number`, the last number. A box that is never closed is no answer.
    """
    box = last_box(text)
    if box is not None:
        return box
    _, mark, rest = text.rpartition("####")
    if mark:
        return rest.partition("\n")[0].strip()
    return _last_number(text) if last_number else None


def last_box(text: str) -> str | None:
    r"""The content of the balanced \boxed{...} or \fbox{...} that ends last; None: there is none.

    One pass that remembers the open boxes and how deep they lie.
    """
    last, depth = None, 0
    boxes: list[tuple[int, int]] = []  # (depth, where its content starts)
    for brace in _BRACE.finditer(text):
        if brace["bare"]:
            last = brace.span("bare")
        elif brace["box"]:
            depth += 1
            boxes.append((depth, brace.end()))
        elif brace[0] == "{":
            depth += 1
        elif brace[0] == "}" and depth:
            if boxes and boxes[-1][0] == depth:
                last = (boxes.pop()[1], brace.start())
            depth -= 1
    return text[slice(*last)] if last else None


def _last_number(text: str) -> str | None:
    last = None
    for match in _NUMBER.finditer(text):
        if any(c.isdigit() for c in match[0]):
            last = match[0]
    return last

r"""Rewriting: buys verdicts on spellings of code, of other countries and of old LaTeX, as text."""

import re
from math import e, factorial

from permix_jax.rewards.vocabulary import paired

_CODE = paired("code")
_CALLED = r"(?<![A-Za-z\\])([A-Z][A-Za-z]{2,8})\[([^\[\]]*)\]"
_REWRITTEN = [
    (re.compile(form), new)
    for form, new in (
        (r"\b(?:math|np|numpy|sp|sympy|cmath)\.(?=[A-Za-z])|^lambda [\w, ]+:", ""),
        (r"(\\\\)\s*\[[0-9.]+ ?[a-z]{2}\]", r"\1"),  # \\[4pt]
        (  # 2 y 3, x = 0 e x = 7
            r"\\text\s*\{\s+[yei]\s*\}(?=\s*(?:[-\\(0-9]|[a-z](?:_\S{1,4})?\s*=))"
            r"|(?<=[0-9}]) y (?=[0-9])"
            r"|(?<=[0-9}]) [ye] (?=[a-z](?:_\S{1,4})?\s*=)",
            r"\\text{ and }",
        ),
        (r"(?:为|是)?(?:偶数|gerade Zahl)", " even "), (r"(?:为|是)?奇数", " odd "),
        (r"(?<=[a-z]{3}) [ey](?= \}| [0-9])", " and "),  # 3 horas e 30 minutos
        (r"([或且和])", r" \1 "), (r"です。?$|^(?:答え|解)は", ""),
        (r"^\{(\w+: ?[^:{}<>\\]+(?:, ?\w+: ?[^:{}<>\\]+)*)\}$", lambda m: m[1].replace(":", "=")),
        (r"^\{(\w+ ?-> ?[^{}<>]+(?:, ?\w+ ?-> ?[^{}<>]+)*)\}$", lambda m: m[1].replace("->", "=")),
        (r"(?<![0-9,])([0-9]+),([0-9]{1,2})(?=\s*(?:€|\\?euro|EUR))", r"\1.\2"),
        (r"^(\\?\$[0-9.]+)k$", r"\1 \\cdot 1000"),  # $70k; 2k is 2 times k
        (r"^(?:int|float)\((-?[0-9.]+)\)$", r"\1"),
        (r"\\d?dots[a-z]?|\.\.\.", r"\\ldots "),
        (r"\^\s*\{\s*\\circ\s*\}", r"^\\circ "),
        # periods of decimals: 0.8~3 is 0.8333...
        (r"([0-9]*\.[0-9]*)\\(?:overline|bar)\s*\{?([0-9]{1,60})\}?", r"\1~\2"),
        (r"([0-9]*\.[0-9]*)\\dot\s*\{?([0-9])\}?(?:([0-9]*)\\dot\s*\{?([0-9])\}?)?", r"\1~\2\3\4"),
        (r"([0-9]+\.)\(([0-9]{1,60})\)", r"\1~\2"),
        (r"([0-9]*\.[0-9]*?)(?:([0-9])\2{2,}|([0-9]{2,9}?)\3+) ?\\ldots", r"\1~\2\3"),
        (r"(?<=[0-9])(?:\\[,!;: ]|\{,\}|,\\!|\{\\,\}|~)(?=[0-9]{3}(?![0-9]))", ""),  # 1{,}000
        (r"(?<=[0-9])\{,\}(?=[0-9])", "."),  # 3{,}5 in other countries
        (r"\{([-+=<>:,.])\}", r"\1"),
        (r"\\(?:text|mathrm)\s*\{\s*[eE]\s*\}\s*\{?([-+]?[0-9]+)\}?", r"e\1"),
        (r"\\not\s*<", r"\\ge "), (r"\\not\s*>", r"\\le "), (r"\\not\s*(?:=|\\equiv)", r"\\ne "),
        (r"^([0-9]+)\s+(?:out\s+of|in)\s+([0-9]+)$", r"\1/\2"),
        (r"(?<=[0-9])\s*[xX]\s*(?=10\s*\^)", r"\\cdot "), (
            r"\\left\s*\\\{\s*\\begin\{\w+\}(?:\{[lcr| ]*\})?(.*?)\\end\{\w+\}\s*\\right\s*\.",
            r"\\begin{cases}\1\\end{cases}",
        ),
        (r"^(?:\\text\{)?0[xX]([0-9a-fA-F]+)\}?$", r"\\text{\1}_{16}"),
        (r"^0[bB]([01]+)$", r"\1_2"), (r"^0[oO]([0-7]+)$", r"\1_8"),
        (r"\b(\w)\s*:\s*(\w)\s*\\mapsto", r"\1(\2)="), (r"^(\w)\s*\\mapsto", r"f(\1)="),
        (r"US\s*\\?\$", r"\\$"),
        (r"^(?:Matrix|array|set|list|tuple|frozenset)\((.*)\)$", r"\1"), (r"float\('inf'\)", "oo"),
        (r"\b(?:Rational|Fraction)\(([^,()]+),([^,()]+)\)", r"((\1)/(\2))"),
        (r"\b(?:math\.perm|perm|nPr)\(([0-9]+),\s*([0-9]+)\)", r"\1!/(\1-\2)!"),
        (r"\bpow\(([^,()]+),([^,()]+)\)", r"((\1)^(\2))"),
        (r"\bcomplex\(([^,()]+),([^,()]+)\)", r"((\1)+(\2)i)"),
        (r"\+\s*/\s*-", r"\\pm "), (r"\\(?:degree|textdegree)(?![a-z])", r"^\\circ "),
        (r"(?<=[0-9])!=(?=[0-9])", "! ="), *[(_CALLED, lambda m: _called(*m.groups()))] * 2,
        (r"\bPi\b", r"\\pi "),
        (r"\{\}\s*_\s*\{?(\w+)\}?\s*C\s*_\s*\{?(\w+)\}?", r"\\binom{\1}{\2}"),
        (r"(?<![A-Za-z])C\s*_\s*\{?([0-9]+|n)\}?\s*\^\s*\{?(\w+)\}?", r"\\binom{\1}{\2}"),
        (r"(?<=[0-9]),\s+(?=[0-9]{3}(?![0-9]))", ";"),  # 1, 234 is a list
        (r"\^\s*\{?\s*(?:\\top|\\intercal|T)\s*\}?", "^T"),
        (r"\\(?:ce|nicefrac|sfrac)(?![a-z])", lambda m: "" if m[0] == "\\ce" else r"\frac"),
    )
]  # fmt: skip
_FRACTION_UNIT = re.compile(  # 9.8 \frac{m}{s^2}
    r"(?<=[0-9}])(?:\\[,;: ]|~|\s)*\\frac"
    r"\{([kcm]?[mgJNCV]|mol|rad|km)\}\{((?:s|h|kg|mol|K|C|m|L|min)(?:\^\{?[23]\}?)?)\}$"
)
_COUNTED = re.compile(
    r"([PAC])\(([0-9]{1,3}),\s*([0-9]{1,3})\)"
    r"|(?:\{\})?\s*[_^]?\s*\{?([0-9]{1,3})\}?\s*([PAC])\s*_?\s*\{?([0-9]{1,3})\}?"
    r"|([PAC])\s*[_^]\s*\{?([0-9]{1,3})\}?\s*[_^]\s*\{?([0-9]{1,3})\}?"
)


def rewritten(text: str, letters: frozenset[str]) -> str:
    """A text in the spelling that `notation.read` knows; `letters`: the problem's variables."""
    if (match := _FRACTION_UNIT.search(text)) and not set(match[1] + match[2]) & letters:
        text = text[: match.start()] + rf"\text{{ {match[1]}/{match[2]}}}"
    text = counted(text) if text[:1] in ("_", "^", "{") else text
    for pattern, new in _REWRITTEN:
        text = pattern.sub(new, text)
    return text


def _called(name: str, inside: str) -> str:
    """ln(2) of Mathematica's Log[2]; what is no such call as it is."""
    base, comma, value = inside.partition(",")
    if name == "Log":
        return rf"\log_{{{base}}}({value})" if comma else f"ln({inside})"
    known = name.lower() if name[:3] != "Arc" else "a" + name[3:].lower()
    return f"{known}({inside})" if known in _CODE else f"{name}[{inside}]"


def counted(text: str) -> str:
    """6!/2! of P(6, 4), {}_6P_4, 6P4 and A_6^4, and so with C; any other text as it is."""
    if (lost := re.fullmatch(r"!([0-9]{1,2})", text.strip())) and 1 < int(lost[1]) < 18:
        return str(round(factorial(int(lost[1])) / e))  # derangements
    match = _COUNTED.fullmatch(text.strip())
    if match is None:
        return text
    found = [group for group in match.groups() if group]
    sign = next(group for group in found if group in "PAC")
    found.remove(sign)
    low, high = sorted(map(int, found))
    top, bottom = f"{high}!", f"({high}-{low})!"
    return f"\\frac{{{top}}}{{{bottom}{f'{low}!' if sign == 'C' else ''}}}"

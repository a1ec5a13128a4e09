"""Chemistry: buys the verdicts on reactions, formulas of substances, electron configurations."""

import re

_ARROW = re.compile(
    r"\\(?:x|x?long|x?left|Long)?right(?:arrow|leftharpoons)(?![a-z])|\\to(?![a-z])|<?=?-+>|[→⟶⇌]"
)
_ATOMS = re.compile(r"[^a-z]*(?:\\(?:mathrm|text|ce)\s*\{)?(?:[A-Z][a-z]?[_{}0-9^+()-]*)+\}?")
_HYBRID = re.compile(r"(?:\\(?:text|mathrm)\s*\{)?sp\}?\^?\{?[23]?\}?(?:d\^?\{?2?\}?)?")
_STATE = re.compile(r"\((?:g|l|s|aq)\)")
_SHELL = re.compile(r"([1-7])([spdf])(?:\^\{(\d{1,2})\}|\^(\d)|(\d{1,2})(?=\s|$))\s*")
_CORES = {"He": "1s^2", "Ne": "1s^22s^22p^6", "Ar": "1s^22s^22p^63s^23p^6"}
_CORES["Kr"] = _CORES["Ar"] + "3d^{10}4s^24p^6"
_CORES["Xe"] = _CORES["Kr"] + "4d^{10}5s^25p^6"


def same_formula(answer: str, gold: str) -> bool:
    """Whether two texts are one reaction, one substance or one electron configuration."""
    if _ARROW.search(gold):
        return _reaction(answer) == _reaction(gold)
    if shells := _shells(gold):
        return _shells(answer) == shells
    named = _ATOMS.fullmatch(gold) or _HYBRID.fullmatch(gold)
    return bool(named) and bare(answer) == bare(gold)


def bare(text: str) -> str:
    r"""Letters and digits alone: H2SO4 of \mathrm{H_2SO_4}."""
    return re.sub(r"\\(?:text|mathrm|ce|mathbf|textbf|rm)(?![a-z])|[\s{}_^$\\,]|and", "", text)


def _reaction(text: str) -> list[list[str]]:
    """The sides of a reaction, the substances of each in one order, without their states."""
    sides = _ARROW.split(_STATE.sub("", text))
    return [sorted(re.split(r"\+(?![}\s]*(?:\+|$))", bare(side))) for side in sides]


def _shells(text: str) -> frozenset[tuple[str, ...]]:
    """{("2", "p", "4"), ...} of an electron configuration; empty for other texts."""
    text = re.sub(r"\\(?:text|mathrm|rm)\s*\{([^{}]*)\}|\\[,;:! ]|\$|~", r"\1 ", text)
    text = re.sub(r"\[\s*(He|Ne|Ar|Kr|Xe)\s*\]", lambda m: _CORES[m[1]], text).strip()
    if not re.fullmatch(f"(?:{_SHELL.pattern})+", text):
        return frozenset()
    return frozenset((n, kind, a or b or c) for n, kind, a, b, c in _SHELL.findall(text))

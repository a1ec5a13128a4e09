r"""One spelling: buys every verdict on LaTeX, Unicode and code-style text that say the same.

`read` turns the text of an answer into tokens: numerals ("12", "0.5"), single letters, commands
("\frac", "\le"), operators, and words, which begin with a double quote ('"cm'). So \dfrac12, ½ and
\frac{1}{2} read alike, and so do x**2, x² and x^{2}.
"""

import re
import tomllib
import unicodedata
from functools import lru_cache
from pathlib import Path

MAX_CHARS = 500

Tokens = tuple[str, ...]

VOCABULARY = tomllib.loads(Path(__file__).with_name("vocabulary.toml").read_text("utf-8"))


def listed(name: str) -> frozenset[str]:
    """A list of words in vocabulary.toml."""
    return frozenset(VOCABULARY[name].split())


def paired(name: str) -> dict[str, str]:
    """A list of two columns in vocabulary.toml."""
    words = VOCABULARY[name].split()
    return dict(zip(words[::2], words[1::2], strict=True))


_SIGNS = str.maketrans({
    sign: f" {new} " if new[0] == "\\" else new for sign, new in paired("signs").items()
})  # fmt: skip
_FIRST, _COMMANDS, _OPERATORS = paired("signs_first"), paired("commands"), paired("operators")
_DROPPED, _UPRIGHT = listed("dropped_commands"), listed("upright_commands")
_CODE, _SHORT_WORDS, _FUNCTIONS = paired("code"), listed("short_words"), listed("functions")
_SCRIPTS = (
    (re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻ⁿⁱˣ]+"), "^{%s}"),
    (re.compile("[₀₁₂₃₄₅₆₇₈₉₊₋ₙₓ]+"), "_{%s}"),
)
_CALL_RUN = re.compile(r"(arcsin|arccos|arctan|sqrt|sin|cos|tan|cot|sec|csc|log|ln|pi)([xyznabt])")
_SI = re.compile(
    r"(?:da|[YZEPTGMkhdcmunpfaµ])?(?:mol|Hz|Pa|eV|rad|bar|cal|Wh|[mgsAKNJWVCFTLHl])|lbs?|oz|ft|hrs?|"
    r"mins?|secs?|mph|mps|deg|sq|cu|kph|km/?h|psi|atm|amu|rpm|dB|[kKMGTmu]?[bB](?:ps|its?)?|in|yd|mi|torr|mmHg|kWh|u|rev"
)
_ONE_LETTER_UNITS = set("mgshNJWVAKCFTHLlM")
_NOTHING = {"\\(", "\\)", "\\[", "\\]", '"', "\\/", "\\-", "\\"}
_LEX = re.compile(
    r"""\\(?P<edge>begin|end)\s*\{(?P<name>[a-zA-Z]+)\*?\}(?:\s*\{[lcr|\s]*\})?
    |\\(?:textcolor|color|colorbox|hspace|vspace|phantom|hphantom|vphantom|label|tag)\*?(?P<skip>\s*\{[^{}]*\}|\s*[a-z]+)
    |\\math(?:bb|cal|scr)\s*\{?\s*(?P<set>[A-Z])\s*\}?
    |(?P<command>\\[A-Za-z]+)|(?P<space>(?:\\[,;:!>\ ]|~|\s)+)
    |(?P<number>[1-9][0-9]{0,2}(?:,[0-9]{3})+(?!,?[0-9])(?:\.[0-9]+)?(?:[eE][-+]?[0-9]{1,3}(?![0-9]))?
      |[0-9]*\.[0-9]*~[0-9]+|(?:[0-9]+(?:\.[0-9]+)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3}(?![0-9.]))?)
    |(?P<run>[^\W\d_]+\d*(?=\()|[^\W\d_]+)|(?P<other>\*\*|[<>!=]=|=[<>](?!=)|\\.|.)""",
    re.VERBOSE | re.DOTALL,
)
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
        (r"([或且和])", r" \1 "), (r"です。?$|^(?:答え|解)は", ""),
        (r"^\{(\w+: ?[^:{}<>\\]+(?:, ?\w+: ?[^:{}<>\\]+)*)\}$", lambda m: m[1].replace(":", "=")),
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
        (r"^0[xX]([0-9a-fA-F]+)$", r"\\text{\1}_{16}"),
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
_TEXT = re.compile(r"\\(?:text|mathrm|mbox|operatorname)\s*\{[^{}]*\}")
_FRACTION_UNIT = re.compile(  # 9.8 \frac{m}{s^2}
    r"(?<=[0-9}])(?:\\[,;: ]|~|\s)*\\frac"
    r"\{([kcm]?[mgJNCV]|mol|rad|km)\}\{((?:s|h|kg|mol|K|C|m|L|min)(?:\^\{?[23]\}?)?)\}$"
)
_IN_UNIT = re.compile(r'[/^{}()-]|[0-9]|\\cdot|".*')
_SPACED = re.compile(r"(\D{0,3}[1-9][0-9]{0,2}(?:[ \u202f~][0-9]{3})+)(?! ?[0-9])([^0-9]*)")

_COUNTED = re.compile(
    r"([PAC])\(([0-9]{1,3}),\s*([0-9]{1,3})\)"
    r"|(?:\{\})?\s*[_^]?\s*\{?([0-9]{1,3})\}?\s*([PAC])\s*_?\s*\{?([0-9]{1,3})\}?"
    r"|([PAC])\s*[_^]\s*\{?([0-9]{1,3})\}?\s*[_^]\s*\{?([0-9]{1,3})\}?"
)

_BEFORE = {"", "\\cup", "\\cap", "\\in", "=", "(", "\\setminus", '"or'}
_BEHIND = {"", "\\cup", "\\cap", ")", "\\setminus", ",", '"or'}
_ABOUT = {'"about', '"approximately', '"approx', '"roughly'}
_REMARKING = {f'"{word}' for word in "when at attained since because not the as i.e".split()}
_JOINING = {'"or', '"and', '"but', ";"}
_CLAUSES = {'"all', '"any', '"every', '"each', '"some'}


def plain(text: str) -> str:
    """A text of any script in one spelling of its characters: NFKC, with scripts as ^{} and _{}."""
    if not text.isascii():
        text = "".join(c for c in text if unicodedata.category(c) != "Cf")
        for pattern, form in _SCRIPTS:
            text = pattern.sub(
                lambda m, form=form: form % unicodedata.normalize("NFKC", m[0]), text
            )
        text = "".join(_FIRST.get(c) or _fraction(c) for c in text)
        text = unicodedata.normalize("NFKC", text).translate(_SIGNS)
    return text


def squeezed(text: str) -> str:
    """LaTeX without spacing, to be compared with, or looked for in, other such text."""
    text = re.sub(r"\\(?:left|right|displaystyle|[,;:! ])(?![a-zA-Z])|[\s${}~]", "", text)
    return re.sub(r"\\[dt]frac", r"\\frac", text)


def _called(name: str, inside: str) -> str:
    """ln(2) of Mathematica's Log[2]; what is no such call as it is."""
    base, comma, value = inside.partition(",")
    if name == "Log":
        return rf"\log_{{{base}}}({value})" if comma else f"ln({inside})"
    known = name.lower() if name[:3] != "Arc" else "a" + name[3:].lower()
    return f"{known}({inside})" if known in _CODE else f"{name}[{inside}]"


def counted(text: str) -> str:
    """6!/2! of P(6, 4), {}_6P_4, 6P4 and A_6^4, and so with C; any other text as it is."""
    match = _COUNTED.fullmatch(text.strip())
    if match is None:
        return text
    found = [group for group in match.groups() if group]
    sign = next(group for group in found if group in "PAC")
    found.remove(sign)
    low, high = sorted(map(int, found))
    top, bottom = f"{high}!", f"({high}-{low})!"
    return f"\\frac{{{top}}}{{{bottom}{f'{low}!' if sign == 'C' else ''}}}"


def is_word(token: str) -> bool:
    return token[:1] == '"'


@lru_cache(8192)
def read(text: str, letters: frozenset[str] = frozenset()) -> Tokens | None:
    """The tokens of an answer; None: too long, or holds characters that no honest answer needs.

    `letters`: the variables of the problem, which are not units where both are possible ("5 m").
    """
    text = plain(text)
    if len(text) > MAX_CHARS or any(
        unicodedata.category(c) in ("Cc", "Co", "Cs", "Cn") and c not in "\t\n\r" for c in text
    ):
        return None
    text = re.sub(r"^([*_]{1,3})(?=\S)(.+?)(?<=\S)\1$", r"\2", text.strip(" \t\r\n`"))
    if match := _SPACED.fullmatch(text):
        text = re.sub(r"(?<=[0-9])[ \u202f~](?=[0-9])", "", match[1]) + match[2]
    if (match := _FRACTION_UNIT.search(text)) and not set(match[1] + match[2]) & letters:
        text = text[: match.start()] + rf"\text{{ {match[1]}/{match[2]}}}"
    text = counted(text) if text[:1] in ("_", "^", "{") else text
    for pattern, new in _REWRITTEN:
        text = pattern.sub(new, text)
    return _lex(text, letters)


def straightened(tokens: Tokens) -> Tokens:
    """One spelling of ]0, 1[ and of "or about 0.58"; without implications and "for all x"."""
    around, turned = ("", *tokens, ""), list(tokens)
    for at, token in enumerate(tokens):
        if token == "]" and around[at] in _BEFORE:
            turned[at] = "("
        elif token == "[" and around[at + 2] in _BEHIND:
            turned[at] = ")"
        elif (
            token in _ABOUT
            and at
            and around[at + 2] not in ("", ")")
            and (around[at] == '"or' or not is_word(around[at]))
        ):
            turned[at] = "\\approx"
    if "\\implies" in turned:
        turned = turned[len(turned) - turned[::-1].index("\\implies") :]
    if turned[:1] == ["\\to"]:
        turned = turned[1:]
    for at, token in enumerate(turned[1:], 1):
        if token == "\\approx" and turned[at - 1] in ("(", '"or'):
            closed = turned[-1] == ")" and turned[at - 1] == "("
            return tuple(turned[: at - 1] + turned[at : len(turned) - closed])
        clause = token == '"for' and (turned[at + 1 : at + 2] or [""])[0] in _CLAUSES
        if clause or token == "\\forall" or (token, len(turned)) == ('"only', at + 1):
            return tuple(turned[: at - (turned[at - 1] == ",")]) + _next_equation(turned[at:])
    return _without_remark(tuple(turned))


def _next_equation(tokens: list[str]) -> Tokens:
    """ "or f(x) = 1" behind "for all x, "; () where no equation follows."""
    at = next((at for at, token in enumerate(tokens) if token in ('"or', '"and', ";")), None)
    return tuple(tokens[at:]) if at and "=" in tokens[at:] else ()


def _without_remark(tokens: Tokens) -> Tokens:
    """5 of "5 (when x = 2)", "5 (x = 2)" and "5 when x = 2"."""
    starts = [at for at, token in enumerate(tokens) if token in ('"when', '"at', "(") and at]
    for at in starts if not any(token.startswith("\\begin") for token in tokens) else ():
        inner = tokens[at:]
        whole = inner[-1] == ")" and inner.count("(") == inner.count(")") == 1
        alone = not _JOINING & {token.lower() for token in inner}
        closes = alone and (whole if inner[0] == "(" else "," not in inner)
        said = {token.lower() for token in inner} & _REMARKING
        about = "=" in inner and not tokens[at - 1][-1:].isalpha()
        if closes and (about or (said and inner[0] == "(")):
            return tokens[:at]
    return tokens


def _fraction(char: str) -> str:
    form = unicodedata.decomposition(char)
    if not form.startswith("<fraction>"):
        return char
    top, _, bottom = unicodedata.normalize("NFKC", char).partition("⁄")
    return f"\\frac{{{top}}}{{{bottom}}}" if bottom else char


def _lex(text: str, letters: frozenset[str]) -> Tokens:
    tokens: list[str] = []
    upright: list[int] = []  # depths of braces inside which letters are words
    depth, brackets, wraps, spaced, in_unit = 0, 0, False, False, False
    runs = re.findall(r"(?<![\\A-Za-z])[A-Za-z]+", _TEXT.sub(" ", text))
    prose = any(len(run) > 3 and run not in _CODE and not _CALL_RUN.fullmatch(run) for run in runs)
    formula = bool(re.search(r"[\^+*/]|\\(?:[dt]?frac|sqrt|cdot|l[no])", text))
    for match in _LEX.finditer(text):
        kind, token, wrapped = match.lastgroup, match[0], wraps
        if kind == "space" or token == "$":
            spaced = True
            continue
        wraps = False
        last = tokens[-1] if tokens else ""
        if kind in ("name", "edge"):
            name = match["name"]
            name = "matrix" if name.endswith(("matrix", "array")) and name[0] not in "vV" else name
            tokens.append(f"\\{match['edge']}{{{name}}}")
        elif kind == "skip":
            wraps = wrapped
        elif kind == "set":
            tokens.append(f"\\{match['set']}" if match["set"] in "RZNQC" else match["set"])
        elif kind == "command":
            name = token[1:]
            wraps = name in _UPRIGHT
            if not wraps and name not in _DROPPED:
                tokens.append(_COMMANDS.get(name, token))
        elif kind == "number" and "," in token and brackets:
            tokens += re.split("(,)", token)
        elif kind == "number":
            tokens.append(token.replace(",", ""))
        elif kind == "run":
            unit = (
                in_unit
                or (last[:1] in ".}])0123456789" and last != "")
                or last in ("\\circ", "\\pi")
            )
            in_unit = (
                _is_unit(token, bool(upright) or wrapped, spaced or in_unit, letters)
                if unit
                else False
            )
            if in_unit or upright or wrapped or not token.isascii() and token not in _CODE:
                tokens.append(_CODE[token] if token in _CODE and not in_unit else f'"{token}')
            else:
                tokens += _run(token, prose, formula and last not in ("\\angle", "\\triangle"))
                in_unit = unit and is_word(tokens[-1]) and token.lower() not in _SHORT_WORDS
        elif token == "{":
            depth += 1
            if wrapped:  # braces around words group nothing
                upright.append(depth)
            else:
                tokens.append("{")
        elif token == "}":
            if upright and upright[-1] == depth:
                upright.pop()
            else:
                tokens.append("}")
            depth = max(0, depth - 1)
        elif token not in _NOTHING:
            token = _OPERATORS.get(token, token)
            brackets += (token in ("(", "[", "\\{")) - (token in (")", "]", "\\}"))
            tokens.append(token)
        spaced = False
        in_unit = in_unit and bool(_IN_UNIT.fullmatch(tokens[-1] if tokens else ""))
    while tokens and tokens[-1] in (",", ";", ".", "\\\\"):
        tokens.pop()
    return tuple(tokens)


def _is_unit(run: str, upright: bool, spaced: bool, letters: frozenset[str]) -> bool:
    """Whether a run of letters behind a number may be a unit."""
    if _CODE.get(run, "")[1:] in _FUNCTIONS and run not in ("min", "sec"):
        return False
    if upright or (run in _CODE and run != "min") or run in _SHORT_WORDS:
        return upright and run not in _SHORT_WORDS
    if set(run) <= letters:
        return False
    return bool(_SI.fullmatch(run) if len(run) > 1 else spaced and run in _ONE_LETTER_UNITS)


def _run(run: str, prose: bool, formula: bool) -> list[str]:
    """A run of letters: a function, a word, or a product of letters."""
    if run in _CODE:
        return [_CODE[run]]
    if match := _CALL_RUN.fullmatch(run):
        return [_CODE[match[1]], match[2]]
    title = len(run) == 3 and run.istitle()
    if len(run) == 1 or (
        len(run) < 4
        and not title
        and not prose
        and run.lower() not in _SHORT_WORDS
        and (formula or not run.isupper())
    ):
        return list(run)
    return [f'"{run}']

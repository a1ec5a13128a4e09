r"""One spelling: buys every verdict on LaTeX, Unicode and code-style text that say the same.

`read` turns the text of an answer into tokens: numerals ("12", "0.5"), single letters, commands
("\frac", "\le"), operators, and words, which begin with a double quote ('"cm'). So \dfrac12, ½ and
\frac{1}{2} read alike, and so do x**2, x² and x^{2}.
"""

import re
import unicodedata
from functools import lru_cache

from permix_jax.rewards.rewriting import rewritten
from permix_jax.rewards.vocabulary import listed, paired

MAX_CHARS = 500

Tokens = tuple[str, ...]

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
_TEXT = re.compile(r"\\(?:text|mathrm|mbox|operatorname)\s*\{[^{}]*\}")
_IN_UNIT = re.compile(r'[/^{}()-]|[0-9]|\\cdot|".*')
_SPACED = re.compile(r"(\D{0,3}[1-9][0-9]{0,2}(?:[ \u202f~][0-9]{3})+)(?! ?[0-9])([^0-9]*)")

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
    text = rewritten(text, letters)
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

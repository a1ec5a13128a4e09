r"""One spelling for what TeX sets alike.

`read` turns the text of an answer into tokens: single characters, commands (`\frac`), words
(`\text{or}`), and braces, which stay only around the arguments of commands and of ^ and _. So
\dfrac12, \frac 1{2} and \frac{1}{2} are the same tokens. `form` writes them out again, and reading
that gives the same tokens.
"""

import re
import unicodedata
from functools import lru_cache

MAX_ANSWER_CHARS = 500
MAX_DEPTH = 24

_TOKEN = re.compile(
    r"\\(?:begin|end)\s*\{[a-zA-Z]+\*?\}|\\[A-Za-z]+|\\.|\s+|[^\W\d_]+|\*\*|.", re.DOTALL
)
_SEPARATED = re.compile(r"(?<=[0-9])(?:\\[,!;:]|\{,\}|,\\!)(?=[0-9]{3}(?![0-9]))")
_LISTED = re.compile(r"(?<=[0-9]),\s+(?=[0-9]{3}(?![0-9]))")
_PLAIN = str.maketrans({
    "\u2212": "-", "\u2013": "-", "\u00d7": "\\times ", "\u00b7": "\\cdot ", "\u22c5": "\\cdot ",
    "\u00f7": "\\div ", "\u03c0": "\\pi ", "\u221e": "\\infty ", "\u2264": "\\le ",
    "\u2265": "\\ge ", "\u2260": "\\ne ", "\u221a": "\\sqrt ", "\u00b0": "^{\\circ}",
    "\u00b1": "\\pm ", "\u222a": "\\cup ", "\u2208": "\\in ", "\u00b2": "^{2}", "\u00b3": "^{3}",
    "\u00bd": "\\frac{1}{2}", "\u00a0": " ", "\u2019": "'", "\u03b8": "\\theta ",
    "\u03b1": "\\alpha ", "\u03b2": "\\beta ", "\u2220": "\\angle ",
})  # fmt: skip
_GREEK = {
    "γ": "\\gamma", "δ": "\\delta", "ε": "\\varepsilon", "ζ": "\\zeta", "η": "\\eta",
    "κ": "\\kappa", "λ": "\\lambda", "μ": "\\mu", "ν": "\\nu", "ξ": "\\xi", "ρ": "\\rho",
    "σ": "\\sigma", "τ": "\\tau", "φ": "\\varphi", "χ": "\\chi", "ψ": "\\psi", "ω": "\\omega",
    "Γ": "\\Gamma", "Δ": "\\Delta", "Θ": "\\Theta", "Λ": "\\Lambda", "Ξ": "\\Xi", "Π": "\\Pi",
    "Σ": "\\Sigma", "Φ": "\\Phi", "Ψ": "\\Psi", "Ω": "\\Omega",
}  # fmt: skip
_KEPT = ("<super>", "<sub>", "<fraction>")  # m² is not m2
_SPACES = {
    "\\,", "\\;", "\\:", "\\ ", "~", "\\quad", "\\qquad", "\\thinspace", "\\!", "\\hspace", "\\",
}  # fmt: skip
_DROPPED = {
    "$", "\\(", "\\)", "\\[", "\\]", "\\left", "\\right", "\\big", "\\Big", "\\bigg", "\\Bigg",
    "\\bigl", "\\bigr", "\\Bigl", "\\Bigr", "\\biggl", "\\biggr", "\\displaystyle", "\\textstyle",
    "\\limits", "\\rm", "\\bf", "\\it", "\\sf", "\\middle",
}  # fmt: skip
_SPELLINGS = {
    "\\dfrac": "\\frac", "\\tfrac": "\\frac", "\\cfrac": "\\frac", "\\leq": "\\le",
    "\\geq": "\\ge", "\\leqslant": "\\le", "\\geqslant": "\\ge", "\\neq": "\\ne",
    "\\lbrace": "\\{", "\\rbrace": "\\}", "\\lvert": "|", "\\rvert": "|", "\\vert": "|",
    "\\mid": "|", "\\lt": "<", "\\gt": ">", "\\lbrack": "[", "\\rbrack": "]", "\\tbinom": "\\binom",
    "\\dbinom": "\\binom", "\\degree": "\\circ", "\\ast": "\\cdot", "\\bullet": "\\cdot",
    "\\dots": "\\ldots", "\\cdots": "\\ldots", "\\emptyset": "\\varnothing", "\\land": "\\wedge",
    "\\colon": ":", "\\bar": "\\overline", "\\to": "\\rightarrow", "\\lparen": "(",
    "\\rparen": ")", "\\textdegree": "\\circ", "\\#": "#", "\\&": "\\text{and}", "*": "\\cdot",
    "**": "^",
}  # fmt: skip
_WRAPPERS = {
    "\\text", "\\mbox", "\\textnormal", "\\textrm", "\\textbf", "\\textit", "\\textup", "\\mathrm",
    "\\mathbf", "\\mathit", "\\mathsf", "\\hbox", "\\boldsymbol", "\\bm", "\\operatorname",
    "\\emph", "\\texttt",
}  # fmt: skip
_BOXES = {"\\boxed", "\\fbox"}
_BARE_COMMANDS = {
    "sqrt": "\\sqrt", "pi": "\\pi", "sin": "\\sin", "cos": "\\cos", "tan": "\\tan", "log": "\\log",
    "ln": "\\ln", "infinity": "\\infty", "inf": "\\infty", "cot": "\\cot", "sec": "\\sec",
    "csc": "\\csc", "arctan": "\\arctan", "arcsin": "\\arcsin", "arccos": "\\arccos",
    "theta": "\\theta", "infty": "\\infty",
}  # fmt: skip
_SHORT_WORDS = {"or", "and", "to", "is", "are", "the", "was", "yes", "no", "odd", "not", "all"}
_GROUPS_OF_THREE = re.compile(r"[-+]?[1-9][0-9]{0,2}(?: [0-9]{3})+")
_MATRICES = {"pmatrix", "bmatrix", "Bmatrix", "matrix", "smallmatrix", "array"}
_INFIX = {"\\choose": "\\binom", "\\over": "\\frac"}
_ARGUMENTS = {"^": 1, "_": 1, "\\frac": 2, "\\binom": 2, "\\sqrt": 1, "\\overline": 1}
_DIGITS = frozenset("0123456789")
_DIGIT_LIST = sorted(_DIGITS)  # compares with groups too, which cannot be hashed

Tokens = tuple[str, ...]


def read(text: str, max_chars: int = MAX_ANSWER_CHARS) -> Tokens | None:
    """The tokens of an answer; None: too long, too deep, or holds control or format characters.

    Control and format characters (among them right-to-left marks) can make a text look like
    another one; no honest answer needs them.
    """
    return None if len(text) > max_chars else _read(text)


@lru_cache(8192)
def _read(text: str) -> Tokens | None:
    if not all(map(_printable, text)):
        return None
    text = text.strip(" \t\r\n*_`")
    if _GROUPS_OF_THREE.fullmatch(text):
        text = text.replace(" ", "")
    # A list of numbers, "1, 234", is not 1,234: spacing is lost from here on.
    text = _LISTED.sub(";", _SEPARATED.sub(",", text.translate(_PLAIN)))
    flat = _lex(text)
    tree = _tree(flat)
    return None if tree is None else tuple(_without_stop(_flatten(tree)))


def plain(text: str) -> str:
    """A text of any script in one spelling of its characters.

    That is NFKC, but for raised and lowered ones and fractions, without format characters
    (zero-width ones, directions).
    """
    if text.isascii():
        return text
    return unicodedata.normalize("NFC", "".join(map(_plain_char, text)))


def text_word(text: str) -> str:
    """The one word that a text is which `read` refuses: equal for texts that people read alike."""
    return f"\\text{{{' '.join(plain(text).casefold().split())}}}"


def form(tokens: Tokens) -> str:
    """The text of `tokens`, equal for equal tokens only; words without their case."""
    return "".join(
        token.casefold() if is_word(token) else f"{token} " if token[1:].isalpha() else token
        for token in tokens
    ).strip(" ")


def is_word(token: str) -> bool:
    return token.startswith("\\text{")


def word(token: str) -> str:
    return token[6:-1].casefold()


def _plain_char(char: str) -> str:
    if unicodedata.category(char) == "Cf":
        return ""
    if unicodedata.decomposition(char).startswith(_KEPT):
        return char
    return unicodedata.normalize("NFKC", char)


def _printable(char: str) -> bool:
    return char in "\t\n\r" or unicodedata.category(char) not in ("Cc", "Cf", "Co", "Cs", "Cn")


def _lex(text: str) -> list[str]:
    """Flat tokens; letters outside words are single, and what is set in \\text becomes words."""
    tokens: list[str] = []
    words_until: list[int] = []  # depths of braces inside which letters are text
    depth, wraps, drops = 0, False, False
    found = _TOKEN.findall(text)
    prose = any(_is_long_word(token) for token in found)
    for raw in found:
        token = _SPELLINGS.get(raw, raw)
        if token.startswith(("\\begin", "\\end")) and "{" in token:
            command, _, name = token.partition("{")
            name = name.rstrip("}*")
            tokens.append(f"{command.strip()}{{{'matrix' if name in _MATRICES else name}}}")
            drops = name == "array" and "begin" in command
        elif token in _SPACES or token.isspace():
            tokens.append(" ")
            drops = drops or token == "\\hspace"
        elif token in _WRAPPERS:
            wraps = True
        elif token == "\\phantom":
            drops = True
        elif token == "{":
            depth += 1
            tokens.append("\\phantom{" if drops else "{")
            if wraps:
                words_until.append(depth)
            wraps = drops = False
        elif token == "}":
            if words_until and words_until[-1] == depth:
                words_until.pop()
            depth = max(0, depth - 1)
            tokens.append(token)
        elif token.isascii() and token.isalpha():
            tokens.extend(_letters(token, prose or bool(words_until)))
            wraps = False
        elif token.isalpha():
            tokens.append(_GREEK.get(token) or f"\\text{{{token}}}")
            wraps = False
        elif token not in _DROPPED and token not in _BOXES:
            wraps = False
            tokens.append(token)
    return tokens


def _is_long_word(token: str) -> bool:
    return len(token) > 3 and token.isascii() and token.isalpha() and token not in _BARE_COMMANDS


def _letters(run: str, in_text: bool) -> list[str]:
    """A run of letters: a word, a function written without its backslash, or a product."""
    if not in_text and run in _BARE_COMMANDS:
        return [_BARE_COMMANDS[run]]
    if len(run) == 1:
        return [run]
    capitals = any(c.isupper() for c in run)
    if in_text or run in _SHORT_WORDS or len(run) > 3 or capitals:
        return [f"\\text{{{run}}}"]
    return list(run)


def _tree(tokens: list[str]) -> list | None:
    """Braces as nested lists; None where they nest too deeply. Braces without a partner go."""
    root: list = []
    stack = [root]
    for token in tokens:
        if token in ("{", "\\phantom{"):
            if len(stack) > MAX_DEPTH:
                return None
            group: list = ["\\phantom"] if token != "{" else []
            stack[-1].append(group)
            stack.append(group)
        elif token == "}":
            if len(stack) > 1:
                stack.pop()
        else:
            stack[-1].append(token)
    return root


def _flatten(items: list) -> list[str]:
    """The tokens of a tree, with braces around arguments only."""
    for infix, command in _INFIX.items():
        if infix in items:
            place = items.index(infix)
            items = [command, items[:place], items[place + 1 :]]
    out: list[str] = []
    position = 0
    while position < len(items):
        item = items[position]
        position += 1
        if isinstance(item, list):
            if item[:1] != ["\\phantom"]:
                _join(out, [*_space(item[:1]), *_flatten(item), *_space(item[-1:])])
        elif item in _ARGUMENTS:
            out.append(item)
            if item == "\\sqrt":
                position = _index(items, position, out)
            for _ in range(_ARGUMENTS[item]):
                argument, position = _argument(items, position, item in "^_")
                out += ["{", *argument, "}"]
        else:
            _join(out, [item])
    return [token for token in out if token != "\0"]


def _space(items: list) -> list[str]:
    """The space at an end of a group, which its flattening has lost."""
    return [" "] if items == [" "] else []


def _join(out: list[str], tokens: list[str]) -> None:
    """Appends without spaces, but for one between two digits: "1 2" is not 12."""
    for token in tokens:
        if token == " ":
            if out and out[-1] in _DIGITS:
                out.append("\0")
        else:
            if out and out[-1] == "\0":
                out.pop()
                if token in _DIGITS:
                    out.append(" ")
            out.append(token)


def _index(items: list, position: int, out: list[str]) -> int:
    """Copies the [3] of a cube root."""
    while position < len(items) and items[position] == " ":
        position += 1
    if position < len(items) and items[position] == "[" and "]" in items[position:]:
        end = items.index("]", position)
        out += ["[", *_flatten(items[position + 1 : end]), "]"]
        return end + 1
    return position


def _argument(items: list, position: int, script: bool) -> tuple[list[str], int]:
    """The argument that starts at `position`, and where the rest starts.

    TeX takes one character where there are no braces. As an exponent more is taken, for who writes
    x^10 or 10^-3 means x^{10} and 10^{-3}.
    """
    while position < len(items) and items[position] == " ":
        position += 1
    if position == len(items):
        return [], position
    first = items[position]
    position += 1
    if isinstance(first, list):
        return ([] if first[:1] == ["\\phantom"] else _flatten(first)), position
    if first in _ARGUMENTS and first not in "^_":
        nested: list[str] = [first]
        if first == "\\sqrt":
            position = _index(items, position, nested)
        for _ in range(_ARGUMENTS[first]):
            inner, position = _argument(items, position, False)
            nested += ["{", *inner, "}"]
        return nested, position
    taken = [first]
    if script and (first in _DIGITS or first in ("-", "+")):
        while position < len(items) and items[position] in _DIGIT_LIST:
            taken.append(items[position])
            position += 1
    return taken, position


def _without_stop(tokens: list[str]) -> list[str]:
    while tokens and tokens[-1] in (",", ";", " ", "\\\\"):
        tokens = tokens[:-1]
    if tokens and tokens[-1] == "." and tokens[-2:-1] != ["."]:
        tokens = tokens[:-1]
    return tokens

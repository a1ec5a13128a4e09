"""Writes all that repeats the declarations of `core/config_fields.py`: docs/config.md, and the
fields in configs/permix.py and configs/reproduce.py.

python -m permix_jax.app.config_page
"""

import json
import textwrap
from pathlib import Path

from permix_jax.core.config_fields import SECTIONS
from permix_jax.core.field_rules import CHANGEABLE, READ_WHERE, condition_in_words

_ROOT = Path(__file__).parents[2]
_BEGIN, _END = "    # The fields, written from ", "    # These were the fields.\n"
_HEAD = """# Config fields

Written by `python -m permix_jax.app.config_page` from `permix_jax/core/config_fields.py`. Any field
can be set on the command line: `--config.train.steps=300`. Presets (`configs/permix.py:PRESET`)
change some of them, and a workdir's `config.json` has them all as the run saw them.
`--help=SECTION` shows a section of this page.
"""
_CHANGEABLE_HEAD = """## What may change when a run goes on

The same command with another value of these goes on in the same workdir. It says so, `config.json`
then has the new value, and its `history` says at which step which field changed. Every other field
must stay as it was.
"""
_READ_HEAD = """## What is read where

A field that is set on the command line and that nothing reads is refused with what it takes. Where
a field and its section are both here, both must hold. Whatever is not here is always read.
"""


def pages() -> dict[Path, str]:
    """Each file, and the text that it is to have."""
    *most, last = SECTIONS
    permix, reproduce = _ROOT / "configs/permix.py", _ROOT / "configs/reproduce.py"
    return {
        _ROOT / "docs/config.md": _document(),
        permix: _with_fields(permix.read_text("utf-8"), most),
        reproduce: _with_fields(reproduce.read_text("utf-8"), [last]),
    }


def _document() -> str:
    lines = [_HEAD]
    for name, section in SECTIONS.items():
        if name:
            lines += ["", f"## {name}", "", *([section.about, ""] if section.about else [])]
        lines += [
            "| field | type | default | values | meaning |",
            "| --- | --- | --- | --- | --- |",
        ]
        for field, (default, meaning, rule, *_) in section.fields.items():
            cells = [f"`{_dotted(name, field)}`", type(default).__name__, f"`{default!r}`"]
            cells += [rule.in_words(), meaning.removesuffix(":")]
            cells = [cell.replace("|", r"\|") for cell in cells]
            lines.append(f"| {' | '.join(cells)} |")
    lines += ["", _CHANGEABLE_HEAD]
    lines += [f"- `{field}`: {reason}" for field, reason in CHANGEABLE.items()]
    lines += ["", _READ_HEAD]
    for field, conditions in READ_WHERE.items():
        lines.append(f"- `{field}`: {'; or '.join(map(condition_in_words, conditions))}")
    return "\n".join(lines) + "\n"


def _with_fields(text: str, sections: list[str]) -> str:
    """A config file with the lines of these sections in place of those that it has."""
    before, begin, rest = text.partition(_BEGIN)
    head, _, rest = rest.partition("\n")
    lines = []
    for name in sections:
        about = SECTIONS[name].about
        if name:
            lines += ["", *_line(f"c.{name} = ConfigDict()", about)]
        for field, declared in SECTIONS[name].fields.items():
            value = declared.default
            value = json.dumps(value) if isinstance(value, str) else repr(value)
            lines += _line(f"c.{_dotted(name, field)} = {value}", declared.in_words())
    after = rest.partition(_END)[2]
    return "\n".join([before + begin + head, *lines, _END + after])


def _line(code: str, comment: str) -> list[str]:
    """Code with its comment, of which what is too much for the line follows in more lines."""
    lines = textwrap.wrap(f"    {code}  # {comment}", 100, subsequent_indent="    # ")
    return lines if comment else [f"    {code}"]


def _dotted(section: str, field: str) -> str:
    return f"{section}.{field}" if section else field


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")

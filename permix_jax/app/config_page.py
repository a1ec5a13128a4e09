"""Writes docs/config.md and the fields in configs/permix.py and configs/reproduce.py.

`core/config_fields.py` declares them. Run `python -m permix_jax.app.config_page` after a change.
"""

import json
import textwrap
from pathlib import Path

from permix_jax.core.config_fields import SECTIONS, dotted
from permix_jax.core.field_rules import CHANGEABLE, READ_WHERE, condition_in_words

_ROOT = Path(__file__).parents[2]
_BEGIN, _END = "    # The fields, written from ", "    # These were the fields.\n"
_HEAD = """# Config fields

This page lists every field that you can set, for example `--config.train.steps=300`. Presets
(`configs/permix.py:PRESET`) change some. A workdir's `config.json` has the values of its run.
`--help=SECTION` shows a section of this page. `python -m permix_jax.app.config_page` writes the
page from `permix_jax/core/config_fields.py`.
"""
_CHANGEABLE_HEAD = """
## What may change when a run goes on

You may give a run that continues another value of these fields. The run says so, `config.json` gets
the new value, and its `history` says which field changed at which step. Every other field must stay
as it was.
"""
_READ_HEAD = """
## What is read where

If you set a field that nothing reads, the command refuses it and says what reading it takes. Where
a field and its section are both listed, both conditions must hold. A field that is not listed is
always read.
"""


def pages() -> dict[Path, str]:
    """Each file, and the text that it should have."""
    *shared, last = SECTIONS
    files = {_ROOT / "configs/permix.py": shared, _ROOT / "configs/reproduce.py": [last]}
    configs = {path: _with_fields(path.read_text("utf-8"), files[path]) for path in files}
    return {_ROOT / "docs/config.md": _document(), **configs}


def _document() -> str:
    lines = [_HEAD]
    for section, (about, _, fields) in SECTIONS.items():
        if section:
            lines += ["", f"## {section}", "", *([about, ""] if about else [])]
        lines += ["| field | type | default | values | meaning |", "| --- " * 5 + "|"]
        for name, (default, meaning, rule, *_) in fields.items():
            cells = [f"`{dotted(section, name)}`", type(default).__name__, f"`{default!r}`"]
            cells += [rule.in_words(), meaning.removesuffix(":").replace("|", r"\|")]
            lines.append(f"| {' | '.join(cells)} |")
    read = {name: "; or ".join(map(condition_in_words, each)) for name, each in READ_WHERE.items()}
    lines += [_CHANGEABLE_HEAD, *_grouped(CHANGEABLE), _READ_HEAD, *_grouped(read)]
    return "\n".join(lines) + "\n"


def _grouped(reasons: dict[str, str]) -> list[str]:
    """A line for each reason, with all fields that it is said of."""
    fields = {}
    for field, reason in reasons.items():
        fields.setdefault(reason, []).append(f"`{field}`")
    return [f"- {', '.join(names)}: {reason}" for reason, names in fields.items()]


def _with_fields(text: str, sections: list[str]) -> str:
    """The text of a config file, with new lines for the fields of these sections."""
    before, begin, rest = text.partition(_BEGIN)
    lines = [before + begin + rest.partition("\n")[0]]
    for section in sections:
        if section:
            lines += ["", *_line(f"c.{section} = ConfigDict()", SECTIONS[section].about)]
        for name, field in SECTIONS[section].fields.items():
            value = json.dumps(field.default) if isinstance(field.default, str) else field.default
            meaning = field.meaning
            if meaning.endswith(":"):
                *most, last = field.rule.choices
                meaning = f"{meaning} {', '.join(most)} or {last}"
            lines += _line(f"c.{dotted(section, name)} = {value}", meaning)
    return "\n".join([*lines, _END + rest.partition(_END)[2]])


def _line(code: str, comment: str) -> list[str]:
    """Code with its comment; a long comment goes on in further lines."""
    lines = textwrap.wrap(f"    {code}  # {comment}", 100, subsequent_indent="    # ")
    return lines if comment else [f"    {code}"]


if __name__ == "__main__":
    for path, text in pages().items():
        path.write_text(text, "utf-8")

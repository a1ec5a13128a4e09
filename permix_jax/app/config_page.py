"""Writes what stands in several files: fields, metrics, the project's address.

docs/config.md and the fields in configs/permix.py and reproduce.py are written from
`core/config_fields.py`, docs/metrics.md from `train/metric_names.py`, and the address in README,
docs and notebooks from setup.cfg. After a change run `python -m permix_jax.app.config_page`.
"""

import configparser
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path

from permix_jax.app.templates import render
from permix_jax.core.config_fields import SECTIONS, dotted
from permix_jax.core.declare import Field
from permix_jax.core.field_rules import CHANGEABLE, READ_WHERE, in_words
from permix_jax.train.metric_names import METRICS

_ROOT = Path(__file__).parents[2]
# OWNER/NAME in the address to clone, and in a link that opens a notebook on Colab.
_ADDRESS = re.compile(r"(clone (?:-q )?https://github\.com/|google\.com/github/)[\w.-]+/[\w.-]+")
_BEGIN, _END = "    # The fields, written from ", "    # These were the fields.\n"


def pages() -> dict[Path, str]:
    """Each file, and the text that it should have."""
    *shared, last = SECTIONS
    files = {_ROOT / "configs/permix.py": shared, _ROOT / "configs/reproduce.py": [last]}
    configs = {path: _with_fields(path.read_text("utf-8"), files[path]) for path in files}
    read = {name: "; or ".join(map(in_words, each)) for name, each in READ_WHERE.items()}
    reasons = {"changeable": _by_reason(CHANGEABLE), "read": _by_reason(read)}
    document = render("config_page.md.jinja", sections=SECTIONS, cells=_cells, **reasons)
    glossary = render("metrics_page.md.jinja", metrics=METRICS)
    written = {_ROOT / "docs/config.md": document, _ROOT / "docs/metrics.md": glossary}
    return written | configs | _with_address()


def _with_address() -> dict[Path, str]:
    """The files that name the project's address, with that of setup.cfg in links and commands."""
    setup = configparser.ConfigParser()
    setup.read(_ROOT / "setup.cfg", "utf-8")
    address = r"\g<1>" + setup["metadata"]["url"].removeprefix("https://github.com/")
    files = [_ROOT / "README.md", _ROOT / "docs/your_own.md", *_ROOT.glob("notebooks/*.ipynb")]
    return {path: _ADDRESS.sub(address, path.read_text("utf-8")) for path in sorted(files)}


def _cells(section: str, name: str, field: Field) -> list[str]:
    named = [f"`{dotted(section, name)}`", type(field.default).__name__, f"`{field.default!r}`"]
    return [*named, field.rule.in_words(), field.meaning.removesuffix(":").replace("|", r"\|")]


def _by_reason(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Each reason, with all fields that it is said of."""
    fields = {}
    for field, reason in reasons.items():
        fields.setdefault(reason, []).append(f"`{field}`")
    return fields


def _with_fields(text: str, sections: list[str]) -> str:
    """The text of a config file, with new lines for the fields of these sections."""
    before, begin, rest = text.partition(_BEGIN)
    lines = [before + begin + rest.partition("\n")[0]]
    for section in sections:
        if section:
            lines += ["", *_line(f"c.{section} = ConfigDict()", SECTIONS[section].about)]
        for name, (default, meaning, rule, *_) in SECTIONS[section].fields.items():
            value = json.dumps(default) if isinstance(default, str) else default
            if meaning.endswith(":"):
                *most, last = rule.choices
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

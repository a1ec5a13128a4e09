"""Writes docs/config.md, all fields of the configs, from the configs themselves:

python -m permix_jax.config_page
"""

import re
import runpy
from collections.abc import Mapping, Sequence
from functools import reduce
from pathlib import Path

from ml_collections import ConfigDict

from permix_jax.core.field_rules import CHANGEABLE

_ROOT = Path(__file__).parents[2]
_SECTION = re.compile(r"    c\.(\w+) = ConfigDict\(\)(?:  # (.*))?")
_FIELD = re.compile(r"    c\.([\w.]+) = .*?  # (.*)")
_MORE = re.compile(r"    # (.*)")
_HEAD = """# Config fields

Written by `python -m permix_jax.app.config_page` from `configs/permix.py` and
`configs/reproduce.py`. Any field can be set on the command line: `--config.train.steps=300`.
Presets (`configs/permix.py:PRESET`) change some of them, and a workdir's `config.json` has them
all as the run saw them. A field set on the command line that nothing reads, such as one of `data`
in the embedded world, is refused with what it takes.
"""
_CHANGEABLE_HEAD = """## What may change when a run goes on

The same command with another value of these goes on in the same workdir. It says so, `config.json`
then has the new value, and its `history` says at which step which field changed. Every other field
must stay as it was.
"""


def config_page() -> str:
    """The page, in Markdown.

    Raises:
      ValueError: a field of the config has no comment.
    """
    lines = [_HEAD]
    for name in ("permix.py", "reproduce.py"):
        path = _ROOT / "configs" / name
        config = runpy.run_path(str(path))["get_config"]()
        sections, meanings = _comments(path.read_text("utf-8"))
        if lines == [_HEAD]:
            lines += _table(config, ["seed"], meanings)
        for section, about in sections.items():
            fields = [key for key in meanings if key.startswith(f"{section}.")]
            if bare := {f"{section}.{name}" for name in config[section]} - set(fields):
                raise ValueError(f"{path}: {min(bare)} has no comment")
            lines += ["", f"## {section}", "", *([about, ""] if about else [])]
            lines += _table(config, fields, meanings)
    lines += ["", _CHANGEABLE_HEAD]
    lines += [f"- `{field}`: {reason}" for field, reason in CHANGEABLE.items()]
    return "\n".join(lines) + "\n"


def _table(config: ConfigDict, fields: Sequence[str], meanings: Mapping[str, str]) -> list[str]:
    rows = ["| field | type | default | meaning |", "| --- | --- | --- | --- |"]
    for field in fields:
        value = reduce(getattr, field.split("."), config)
        meaning = meanings[field].replace("|", r"\|")
        rows.append(f"| `{field}` | {type(value).__name__} | `{value!r}` | {meaning} |")
    return rows


def _comments(source: str) -> tuple[dict[str, str], dict[str, str]]:
    """(sections with their comments, fields with theirs); a comment may go on in further lines."""
    sections: dict[str, str] = {}
    fields: dict[str, str] = {}
    last = None
    for line in source.splitlines():
        if found := _SECTION.fullmatch(line):
            sections[found[1]], last = found[2] or "", None
        elif found := _FIELD.fullmatch(line):
            fields[last := found[1]] = found[2]
        elif (found := _MORE.fullmatch(line)) and last:
            fields[last] += f" {found[1]}"
        else:
            last = None
    return sections, fields


if __name__ == "__main__":
    (_ROOT / "docs" / "config.md").write_text(config_page(), "utf-8")

"""Texts made from the templates of this folder."""

from pathlib import Path
from typing import Any

import jinja2


def render(name: str, **values: Any) -> str:
    """The text of the template `name`, a file of this folder, with these values."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=jinja2.select_autoescape(["html.jinja"]),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(values)

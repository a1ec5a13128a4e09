"""README and docs: their links lead somewhere, and the fields and files they name are there."""

import re

import pytest
from runs import ROOT, load_config

from permix_jax.fields import flat_fields

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FIELDS = set(flat_fields(load_config("reproduce.py", "").to_dict()))
SECTIONS = {field.partition(".")[0] for field in FIELDS if "." in field}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_resolve(page):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    local = [link for link in links if not re.match(r"\w+:", link)]
    assert [link for link in local if not (page.parent / link).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_fields_and_files_exist(page):
    text = page.read_text("utf-8")
    named = re.findall(r"--config\.([a-z_]+\.[a-z_]+)", text)
    named += [
        field
        for field in re.findall(r"`([a-z_]+\.[a-z_]+)(?: = [^`]*)?`", text)
        if field.partition(".")[0] in SECTIONS and not field.endswith((".py", ".jsonl", ".json"))
    ]
    assert [field for field in named if field not in FIELDS] == []
    files = re.findall(r"\b(?:launch|configs|benchmarks)/\w+\.py", text)
    assert [file for file in files if not (ROOT / file).is_file()] == []


def test_pages_are_looked_at():
    text = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert text.count("](") > 40 and text.count("--config.") > 20

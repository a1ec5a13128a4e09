"""docs/config.md and the fields of the config files are what the declarations say."""

import configparser

import pytest
from runs import ROOT, load_config

from permix_jax.app.config_page import pages
from permix_jax.core.config_fields import FIELDS, defaults
from permix_jax.core.fields import flat_fields

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_current(path):
    assert path.read_text("utf-8") == PAGES[path], "run python -m permix_jax.app.config_page"


def test_the_address_stands_in_setup_cfg_alone(monkeypatch):
    """Another address there is another one in every clone command and Colab link."""
    named = {path: text for path, text in PAGES.items() if "permix-jax/permix_jax" in text}
    assert {path.name for path in named} >= {"README.md", "your_own.md", "extend.ipynb"}
    read = configparser.ConfigParser.read

    def moved(parser, *file):
        read(parser, *file)
        parser["metadata"]["url"] = "https://github.com/lab/other"

    monkeypatch.setattr(configparser.ConfigParser, "read", moved)
    texts = pages()
    for path, text in named.items():
        assert "permix-jax/permix_jax" not in texts[path]
        assert texts[path].count("lab/other") == text.count("permix-jax/permix_jax")
    assert "git clone https://github.com/lab/other && cd" in texts[ROOT / "docs/your_own.md"]


def test_every_field_is_there_with_its_default():
    page = PAGES[ROOT / "docs/config.md"]
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| `")]
    named = {row[0].strip("| `"): row[2].strip("`") for row in rows}
    assert named == {field: repr(declared.default) for field, declared in FIELDS.items()}


def test_the_config_files_have_the_declared_fields_and_defaults():
    assert load_config("permix.py", "").to_dict() == defaults()
    config = load_config("reproduce.py", "").to_dict()
    assert config["eval"]["every"] == 50  # which reproduce.py sets
    config["eval"]["every"] = 0
    declared = {field: declared.default for field, declared in FIELDS.items()}
    assert flat_fields(config) == declared


def test_a_long_meaning_goes_on_in_the_next_line_and_choices_follow_a_colon():
    lines = PAGES[ROOT / "configs/reproduce.py"].splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith("    c.reproduce.ablation ="))
    meaning = "what to change in further runs of permix and rlvr"
    assert lines[at].endswith(f"  # {meaning}: none, level,")
    assert (
        lines[at + 1] == "    # advantage_group, share, kl, adaptive, personas, rehearsal or plain"
    )

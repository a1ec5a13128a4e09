"""docs/config.md and the fields of the config files are what the declarations say."""

import pytest
from runs import ROOT, load_config

from permix_jax.app.config_page import pages
from permix_jax.core.config_fields import FIELDS, defaults
from permix_jax.core.fields import flat_fields

PAGES = pages()


@pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)
def test_the_page_is_current(path):
    assert path.read_text("utf-8") == PAGES[path], "run python -m permix_jax.app.config_page"


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

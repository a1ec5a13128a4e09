"""docs/config.md is what the configs say."""

from ml_collections import ConfigDict
from runs import ROOT, load_config

from permix_jax.app.config_page import config_page
from permix_jax.core.fields import flat_fields


def test_the_page_is_current():
    assert (ROOT / "docs/config.md").read_text("utf-8") == config_page(), (
        "run python -m permix_jax.app.config_page"
    )


def test_every_field_is_there_with_its_default():
    rows = [line.split(" | ") for line in config_page().splitlines() if line.startswith("| `")]
    named = {row[0].strip("| `"): row[2].strip("`") for row in rows}
    config = load_config("reproduce.py", "").to_dict()
    config["eval"]["every"] = 0  # reproduce.py sets it
    fields = flat_fields(ConfigDict(config).to_dict())
    assert named == {field: repr(value) for field, value in fields.items()}

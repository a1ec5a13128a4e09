"""The config that a run was made with, as a config file: --config=config_of_run.py:WORKDIR.

`app/cli.py` uses it for the commands that take a run's --workdir and no --config.
"""

from pathlib import Path

from ml_collections import ConfigDict

from permix_jax.core.config_fields import defaults
from permix_jax.core.fields import filled_up
from permix_jax.core.files import read_json


def get_config(workdir: str) -> ConfigDict:
    """Of the run's config.json; fields that are newer than the run have their default.

    Raises as `read_json`.
    """
    record = read_json(Path(workdir, "config.json"), "name the workdir of a run")
    return ConfigDict(filled_up(record["config"], defaults())).lock()

"""The config of a run, read as a config file: --config=config_of_run.py:WORKDIR.

`app/cli.py` uses it for commands that take a run's --workdir and no --config.
"""

from pathlib import Path

from ml_collections import ConfigDict

from permix_jax.core.config_fields import defaults
from permix_jax.core.fields import filled_up
from permix_jax.evaluation.results import read_json


def get_config(workdir: str) -> ConfigDict:
    """Fields that are newer than the run have their defaults. Raises as `read_json`."""
    record = read_json(Path(workdir, "config.json"))
    return ConfigDict(filled_up(record["config"], defaults())).lock()

"""The config that a run was made with, as a config file: --config=config_of_run.py:WORKDIR.

`cli.py` uses it for the commands that take a run's --workdir and no --config.
"""

from pathlib import Path

from ml_collections import ConfigDict

from permix_jax.files import read_json


def get_config(workdir: str) -> ConfigDict:
    """Of the run's config.json; raises as `read_json`."""
    record = read_json(Path(workdir, "config.json"), "name the workdir of a run")
    return ConfigDict(record["config"]).lock()

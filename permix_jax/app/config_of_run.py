"""The config that a run was made with, as a config file: --config=config_of_run.py:WORKDIR.

`app/cli.py` uses it for the commands that take a run's --workdir and no --config.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict

from permix_jax.core.fields import filled_up
from permix_jax.core.files import read_json

_DEFAULTS = Path(__file__).parents[2] / "configs" / "permix.py"


def get_config(workdir: str) -> ConfigDict:
    """Of the run's config.json; fields that are newer than the run have their default.

    Raises as `read_json`.
    """
    record = read_json(Path(workdir, "config.json"), "name the workdir of a run")
    config = record["config"]
    if _DEFAULTS.is_file():
        config = filled_up(config, runpy.run_path(str(_DEFAULTS))["get_config"]().to_dict())
    return ConfigDict(config).lock()

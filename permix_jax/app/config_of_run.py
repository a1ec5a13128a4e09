"""The config of a run, read as a config file: --config=config_of_run.py:WORKDIR.

`app/cli.py` uses it for commands that take a run's --workdir and no --config.
"""

from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from permix_jax.core.config_fields import GONE, defaults
from permix_jax.core.fields import filled_up
from permix_jax.core.places import place_of
from permix_jax.evaluation.results import read_json


def get_config(workdir: str) -> ConfigDict:
    """Fields that are newer than the run have their defaults; those that are no more are left out.
    Raises as `read_json`."""
    config = read_json(place_of(workdir) / "config.json")["config"]
    fields = {name: x for name, x in flatten_dict(config, sep=".").items() if name not in GONE}
    return ConfigDict(filled_up(unflatten_dict(fields, sep="."), defaults())).lock()

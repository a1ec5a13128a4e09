"""Plain RLVR: PerMix without personas in the prompts. Takes the presets of configs/permix.py.

python launch/train.py --config=configs/rlvr.py
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """configs/permix.py with one line changed."""
    permix = runpy.run_path(str(Path(__file__).with_name("permix.py")))
    c = permix["get_config"](preset)
    c.personas.share = 0.0  # no problem carries a persona
    return c

"""Plain RLVR: PerMix with no persona in any prompt. Takes the same presets as configs/permix.py.

python launch/train.py --config=configs/rlvr.py
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """configs/permix.py but for one line."""
    permix = runpy.run_path(str(Path(__file__).with_name("permix.py")))
    c = permix["get_config"](preset)
    c.personas.share = 0.0  # no problem carries a persona
    return c

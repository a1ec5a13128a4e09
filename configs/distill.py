"""Sequence-level distillation: cross-entropy on a teacher's verified responses, in place of GRPO.

python launch/train.py --config=configs/distill.py        takes the presets of configs/permix.py
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """configs/permix.py with one line changed."""
    permix = runpy.run_path(str(Path(__file__).with_name("permix.py")))
    c = permix["get_config"](preset)
    c.train.method = "distill"
    return c

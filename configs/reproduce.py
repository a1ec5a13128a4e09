"""The paper's comparison: base, SFT, distillation, RLVR and PerMix-RLVR over seeds.

    python launch/reproduce.py --config=configs/reproduce.py          embedded world
    python launch/reproduce.py --config=configs/reproduce.py:PRESET   as in configs/permix.py

Every run is configs/permix.py with a few named changes (permix_jax/reproduction/methods.py). A
field that you set here holds for all runs: --config.train.steps=300
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """configs/permix.py, and the fields that say what to compare."""
    permix = runpy.run_path(str(Path(__file__).with_name("permix.py")))
    c = permix["get_config"](preset).unlock()
    c.eval.every = max(1, c.train.steps // 3)  # for the curve of PSS over steps
    if preset == "smollm2_arithmetic":  # evaluations take as long as the training
        c.eval.every, c.eval.personas, c.eval.kl_responses = 0, 24, 256

    # The fields, written from permix_jax/core/config_fields.py by permix_jax.app.config_page

    c.reproduce = ConfigDict()  # read by launch/reproduce.py alone (configs/reproduce.py)
    c.reproduce.methods = "sft,distill,rlvr,permix"  # what to train; their base is evaluated, too
    c.reproduce.seeds = 5  # how many, from c.seed on; each has its own base, split and runs
    c.reproduce.ablation = "none"  # what to change in further runs of permix and rlvr: none, level,
    # advantage_group, share, kl, adaptive, personas, rehearsal or plain
    c.reproduce.processes = 0  # runs side by side on the CPU; 0: as many as cores; 1: on any device
    # These were the fields.
    return c.lock()

"""Evaluates any model on MATH500, greedily, under every persona that RL never draws.

    python launch/evaluate.py --config=configs/eval_math500.py --model=Qwen/Qwen3-0.6B --out=DIR

For other problems: --config.data.test=aime24 --config.task.num_test=30, gsm8k_test with 1319, svamp
with 300, or the path of a JSONL file of prompt and answer.
"""

import runpy
from pathlib import Path

from ml_collections import ConfigDict


def get_config(preset: str = "") -> ConfigDict:
    """configs/permix.py, changed to evaluate a real model. There are no presets."""
    if preset:
        raise ValueError(f"no preset {preset!r}; this config has none")
    permix = runpy.run_path(str(Path(__file__).with_name("permix.py")))
    c = permix["get_config"]()
    c.task.name, c.task.num_test = "problems", 500
    c.data.train, c.data.test = "math", "math500"  # data.train is not read
    c.model.dtype, c.model.param_dtype, c.model.head_chunk = "bfloat16", "bfloat16", 2048
    c.sft.steps = 0
    c.rollout.max_prompt_tokens, c.rollout.max_new_tokens = 512, 1024
    c.rollout.on_overflow = "drop"
    c.eval.sets = "heldout,harmful,neutral"
    c.eval.temperature, c.eval.role_play_samples, c.eval.batch_size = 0.0, 0, 64
    return c

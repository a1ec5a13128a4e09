"""The evaluation answers of a base policy, shared by the runs that start from it and ask the same.

Methods that are compared start from one base, and its answers cost as much as a trained policy's.
"""

import hashlib
import json
from pathlib import Path

import jax

from permix_jax.app.build import eval_identity
from permix_jax.train.base import code_digest
from permix_jax.train.run import Run

# What answers and their grades depend on beside the base; its own code is in its folder's name.
_CODE = ("core/problem.py", "evaluation", "rewards", "rollout")


def base_answers(run: Run) -> Path | None:
    """Where they are kept: a hash of all that they depend on is part of the path.

    None where the base is of a folder that may change: another run's, or a local model.
    """
    config = run.config
    if config.train.get("start") or (config.model.source and Path(config.model.source).exists()):
        return None
    device = jax.devices()[0].device_kind
    facts = [run.base_folder.name, eval_identity(config), device, code_digest(_CODE)]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    place = run.base_folder.parents[1] / "base_answers" / digest.hexdigest()[:16]
    return place / "completions.jsonl"

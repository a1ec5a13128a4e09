"""What is declared of config fields beside their values: which may change when a run goes on.

Plain data, by dotted field. Imports no JAX, so that a command can read it before its job begins.
"""

from collections.abc import Mapping
from typing import Any

# Fields in which a run may go on with another value than it began with, and why its results stay
# the same. `workdir.py` writes each change into the history of config.json. None of them is part
# of what an evaluation or a cached base policy is known by.
CHANGEABLE: dict[str, str] = {
    "train.steps": "the steps done are the same; refused where train.decay was computed from it",
    "train.micro_batch_tokens": "an update's sums are taken in other parts: equal up to rounding",
    "train.checkpoint_every": "only says when the state is saved",
    "train.keep_checkpoints": "only says what is kept",
    "train.log_completions_every": "only says what is written",
    "sft.checkpoint_every": "only says when the state is saved",
    "rollout.micro_batches": "rollouts are sampled in other batches: equal up to rounding",
    "rollout.halvings": "rows are decoded in other batches: equal up to rounding",
    "rewards.workers": "only says how many answers are compared at once",
    "model.head_chunk": "an update's sums are taken in other parts: equal up to rounding",
    "model.remat": "the backward pass computes the same again: equal up to rounding",
    "eval.batch_size": "an answer depends on its own key alone: equal up to rounding",
    "personagym.batch_size": "an answer depends on its own key alone: equal up to rounding",
    "mesh.data": "sums are taken over other devices: equal up to rounding",
    "mesh.fsdp": "sums are taken over other devices: equal up to rounding",
    "mesh.tensor": "sums are taken over other devices: equal up to rounding",
}


def fixed_fields(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """The config, or its section `prefix` ("model."), without the fields of CHANGEABLE."""
    return {
        name: fixed_fields(value, f"{prefix}{name}.") if isinstance(value, Mapping) else value
        for name, value in config.items()
        if prefix + name not in CHANGEABLE
    }

"""The runs of a comparison: methods and ablations, each of which changes fields of one config."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from permix_jax.app.validation import require_valid
from permix_jax.core.config_fields import SECTIONS
from permix_jax.core.field_rules import valid_field
from permix_jax.core.fields import names_in

Changes = Mapping[str, Any]

# Same as the files of these names in configs/.
METHODS: dict[str, Changes] = {
    "sft": {"train.method": "sft"},
    "distill": {"train.method": "distill"},
    "rlvr": {"personas.share": 0.0},
    "permix": {},
}
# A group of 32 rollouts holds about four under each of the embedded world's eight personas.
_WIDE = {
    "personas.level": "rollout",
    "personas.count": 8,
    "rollout.group_size": 32,
    "train.problems_per_step": 8,
}
PLAIN_SHARES = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
# The runs that an ablation adds to unchanged "permix" and "rlvr".
ABLATIONS: dict[str, dict[str, Changes]] = {
    "level": {"permix rollout": {"personas.level": "rollout"}},
    "advantage_group": {
        "permix wide, problem": _WIDE,
        "permix wide, problem_persona": {**_WIDE, "grpo.advantage_group": "problem_persona"},
    },
    "share": {f"permix share {x}": {"personas.share": x} for x in (0.25, 0.5, 1.0)},
    "kl": {
        f"{method} kl {x}": {**METHODS[method], "grpo.kl_weight": x}
        for x in (0.0, 0.02, 0.05, 0.2)
        for method in ("rlvr", "permix")
    },
    "adaptive": {"permix adaptive": {"personas.weights": "adaptive"}},
    "personas": {f"permix {x} personas": {"personas.count": x} for x in (1, 2, 4)},
    "rehearsal": {
        f"{method} rehearsal": {**METHODS[method], "rehearsal.weight": 0.5}
        for method in ("rlvr", "permix")
    },
    "plain": {
        f"{method} plain {q} kl {x}": {
            **METHODS[method],
            "task.plain_style_share": q,
            "grpo.kl_weight": x,
        }
        for q in PLAIN_SHARES
        for x in (0.0, 0.02, 0.1)
        for method in ("rlvr", "permix")
    },
}


class Job(NamedTuple):
    """One run: `name` is its row in the table; `config` is resolved, without `reproduce`."""

    name: str
    seed: int
    config: dict
    workdir: Path
    preset: str


def jobs_of(config: ConfigDict, out: Path, preset: str) -> list[Job]:
    """The runs that `config.reproduce` asks for, with workdirs in `out`.

    Neighbours differ in their seed: runs of one seed share a base policy, and would wait until one
    of them has trained it. A run of an ablation that changes nothing is left out.

    Raises:
      ValueError: an impossible value, in one line with field, value and remedy.
    """
    for name in SECTIONS["reproduce"].fields:
        valid_field(config, f"reproduce.{name}")
    r, common = config.reproduce, json.loads(config.to_json())
    del common["reproduce"]
    ablation = ABLATIONS.get(r.ablation, {})
    methods = ("rlvr", "permix") if ablation else names_in(r.methods)
    runs, jobs = {name: METHODS[name] for name in methods} | ablation, []
    done = []
    for name, changes in runs.items():
        for seed in range(config.seed, config.seed + r.seeds):
            run = ConfigDict(common)
            run.update_from_flattened_dict({**changes, "seed": seed})
            require_valid(run)
            if run.to_dict() in done:
                continue
            done.append(run.to_dict())
            folder = f"{name.replace(',', '').replace(' ', '-')}-s{seed}"
            jobs.append(Job(name, seed, run.to_dict(), out / folder, preset))
    return jobs

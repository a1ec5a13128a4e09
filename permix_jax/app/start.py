"""The policy of another run, with which a run begins: `train.start`, or launch/train.py --from.

It becomes the run's base, which is cached as a base of SFT is. So the other run is needed only
until its policy is copied.
"""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.best import chosen_step
from permix_jax.app.policies import policy_and_base
from permix_jax.app.workdir import config_at_start
from permix_jax.core.fields import differing_fields
from permix_jax.core.places import place_of
from permix_jax.evaluation.results import read_json
from permix_jax.models.params import merge_adapters
from permix_jax.models.policy import Policy, StoredPolicy
from permix_jax.train.run import checkpoint

# What changes how a policy is computed, and not which policy it is.
_COMPUTED = {
    "dtype": "float32",
    "param_dtype": "float32",
    "remat": "none",
    "attention": "auto",
}


def find_start(config: ConfigDict, workdir: Path) -> dict[str, Any]:
    """Which policy `train.start` names: {} for none; the "start" of config.json in a begun run.

    run: the other workdir. step: of its checkpoint. sha256: of its config at the start, its base
    and the checksums of the arrays.

    Raises FileNotFoundError or ValueError, in one line, where there is no such checkpoint.
    """
    if not config.train.start:
        return {}
    path = workdir / "config.json"
    if path.exists() and (known := read_json(path).get("start")):
        return known
    name, _, step = config.train.start.rpartition(":")
    if not name or not (step == "best" or step.isdecimal()):
        name, step = config.train.start, ""
    other = place_of(name).absolute()
    try:
        read_json(other / "config.json")
        number = chosen_step(other, int(step) if step.isdecimal() else step or None)
        return {"run": str(other), "step": number, "sha256": _sha256(other, number)}
    except (FileNotFoundError, ValueError) as error:
        raise type(error)(f"train.start is {config.train.start!r}: {error}") from None


def open_start(start: dict[str, Any], policy: Policy, copy: Path, mesh: Mesh) -> StoredPolicy:
    """The policy that `find_start` found, without adapters: they are merged in f32.

    Args:
      policy: of the run that begins; it must be of the same architecture.
      copy: the folder that lacks its copy.

    Raises:
      FileNotFoundError: the other run is gone. ValueError: it is another run, or another model.
    """
    workdir, step = place_of(start["run"]), start["step"]
    named = f"train.start is step {step} of {workdir}"
    try:
        same = _sha256(workdir, step) == start["sha256"]
    except FileNotFoundError:
        raise FileNotFoundError(
            f"{named}, which is gone, and so is its copy {copy}; put one of them back"
        ) from None
    if not same:
        raise ValueError(f"{named}, where another policy stands now; put that one back")
    record = read_json(workdir / "config.json")
    other, base = policy_and_base(ConfigDict(record["config"]), record["base"], mesh)
    if fields := differing_fields(_architecture(policy), _architecture(other)):
        raise ValueError(
            f"{named}, a policy of another architecture ({'; '.join(fields)}); set the fields of "
            "c.model as that run has them"
        )
    stored = checkpoint(other, base, workdir, step)

    def load() -> dict:
        return merge_adapters(other.model, stored.load_params(), "float32")

    return StoredPolicy(named, other, mesh, load)


def _sha256(workdir: Path, step: int) -> str:
    """Raises FileNotFoundError where the run or its checkpoint is gone."""
    record, folder = read_json(workdir / "config.json"), workdir / "checkpoints" / str(step)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such checkpoint")
    sums = folder / "checksums/metadata"  # checkpoints of the first versions have none
    known = [config_at_start(record), place_of(record["base"]).name, step]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    digest.update(sums.read_bytes() if sums.exists() else b"")
    return digest.hexdigest()


def _architecture(policy: Policy) -> dict[str, Any]:
    """What two policies must share, so that one reads the other's parameters and tokens."""
    shape = replace(policy.model.config, lora=None, **_COMPUTED)
    vocabulary = json.dumps(policy.tokenizer.get_vocab(), sort_keys=True).encode()
    return {
        **asdict(shape),
        "end_tokens": tuple(policy.end_tokens),
        "vocabulary": hashlib.sha256(vocabulary).hexdigest()[:8],
    }

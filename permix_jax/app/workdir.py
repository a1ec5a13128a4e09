"""The folder of a run, and the one of what runs share."""

import datetime
import importlib.metadata
import json
import logging
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from flax.traverse_util import flatten_dict, unflatten_dict
from ml_collections import ConfigDict

from permix_jax.core.field_rules import fixed_fields
from permix_jax.core.fields import differing_fields, filled_up, flat_fields
from permix_jax.core.files import read_json, write_json

_LOG = logging.getLogger(__name__)
_PACKAGES = ("permix_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers")


def cache_folder() -> Path:
    """Where bases, converted weights and compiled programs are kept: $PERMIX_CACHE, or ~/.cache."""
    return Path(os.environ.get("PERMIX_CACHE") or Path.home() / ".cache" / "permix_jax").absolute()


def claim_workdir(
    workdir: Path,
    config: ConfigDict,
    name: str,
    preset: str,
    base: Path,
    changed: Sequence[str] = (),
    method: Mapping[str, Any] | None = None,
) -> None:
    """Writes config.json, or checks that the run there may go on with this config and method.

    Fields of `field_rules.CHANGEABLE` may differ. What changed is said, `config` in config.json is
    then what holds from now on, and `history` has an entry more: {"step": the newest checkpoint,
    "date": UTC, "changes": {field: [old, new]}}, with None for a field that was not there.

    `base` is the folder of the base policy, with the log of its SFT; `changed`, the fields that
    have another value than in the preset; `method`, what `training.method.describe` says of it.

    Raises ValueError, with what differs, for the workdir of another config or method.
    """
    path, resolved = workdir / "config.json", json.loads(config.to_json())
    if path.exists():
        changes = require_same_config(workdir, resolved, "--workdir")
        _require_same_method(workdir, dict(method or {}))
        if changes:
            _change(workdir, resolved, changes, list(changed))
        return
    record = {
        "name": name,
        "preset": preset,
        "config": resolved,
        "changed": list(changed),
        "method": dict(method or {}),
        "base": str(base),
        "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
        "git": _git_revision(),
        "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
    }
    write_json(path, record)


def require_same_config(workdir: Path, config: dict, option: str) -> dict[str, list]:
    """The fields in which the run in `workdir` would go on with another value: {field: [old, new]}.

    `option`: of the command line, that names another place.

    Raises ValueError, with the differing fields, for a run of another config; and for a train.steps
    that the run cannot have any more.
    """
    theirs = read_json(workdir / "config.json", "name the workdir of a run")["config"]
    fixed = fixed_fields(config)  # fields that are newer than the run are not compared
    if fields := differing_fields(fixed, filled_up(fixed_fields(theirs), fixed)):
        raise ValueError(
            f"{workdir} belongs to a run with another config ({'; '.join(fields)}); name "
            f"another {option}, or set these fields as they were"
        )
    old, new = flat_fields(theirs), flat_fields(config)
    changes = {f: [old.get(f), value] for f, value in new.items() if old.get(f) != value}
    if "train.steps" in changes:
        _require_possible_steps(workdir, config, *changes["train.steps"], option)
    return changes


def _require_possible_steps(workdir: Path, config: dict, old: int, new: int, option: str) -> None:
    decay, done = config["train"]["decay"], newest_saved_step(workdir)
    if decay != "none":
        raise ValueError(
            f"train.steps is {new}; the run in {workdir} has {old}, over which its learning rate "
            f"decays (train.decay = {decay}): set it to {old}, or name another {option}"
        )
    if new < done:
        raise ValueError(
            f"train.steps is {new}; the run in {workdir} has done {done} steps: use {done} or "
            f"more, or name another {option}"
        )


def newest_saved_step(workdir: Path) -> int:
    """The step of the newest checkpoint, by the names of their folders; 0 where there is none."""
    folder = workdir / "checkpoints"
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return max((int(name) for name in names if name.isdecimal()), default=0)


def _change(workdir: Path, config: dict, changes: dict[str, list], changed: list[str]) -> None:
    path, step = workdir / "config.json", newest_saved_step(workdir)
    record = read_json(path, "name the workdir of a run")
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    entry = {"step": step, "date": now, "changes": changes}
    record |= {"config": config, "changed": changed}
    record["history"] = [*record.get("history", []), entry]
    if "train.steps" in changes:  # a comparison takes a run with a report for a finished one
        (workdir / "report.html").unlink(missing_ok=True)
    write_json(path, record)
    said = "; ".join(
        f"{field}: {new!r} instead of {old!r}" for field, (old, new) in changes.items()
    )
    _LOG.info("%s goes on from step %d with %s (kept in config.json)", workdir, step, said)


def config_at_start(record: Mapping[str, Any]) -> dict[str, Any]:
    """The config that the run whose config.json is `record` began with, resolved."""
    fields = flatten_dict(record["config"], sep=".")
    for entry in reversed(record.get("history", [])):
        for field, (old, _) in entry["changes"].items():
            if old is None:
                fields.pop(field, None)
            else:
                fields[field] = old
    return unflatten_dict(fields, sep=".")


def _require_same_method(workdir: Path, method: dict) -> None:
    theirs = read_json(workdir / "config.json", "name the workdir of a run").get("method", {})
    if parts := differing_fields(method, theirs, "method."):
        named = "; ".join(parts).replace("'(absent)'", "ours")
        raise ValueError(
            f"{workdir} belongs to a run with other functions ({named}); name another workdir, or "
            "pass the method that it had"
        )


def _git_revision() -> str | None:
    """The commit of the checkout that the package is imported from; None outside of one."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

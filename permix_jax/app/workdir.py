"""The folder of a run, and the cache folder that runs share."""

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

from permix_jax.core.config_fields import GONE
from permix_jax.core.field_rules import fixed_fields
from permix_jax.core.fields import differing_fields, filled_up, flat_fields
from permix_jax.core.files import write_json
from permix_jax.core.places import Address
from permix_jax.evaluation.results import read_json
from permix_jax.train.saved_steps import saved_steps

_LOG = logging.getLogger(__name__)
_PACKAGES = ("permix_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers")


def cache_folder() -> Path:
    """Where bases, converted weights and compiled programs are kept: $PERMIX_CACHE, or ~/.cache."""
    return Path(os.environ.get("PERMIX_CACHE") or Path.home() / ".cache" / "permix_jax").absolute()


def shared_cache(workdir: Path) -> Path:
    """Where the base policy of a run is kept, which all its processes must see.

    For a workdir in a store it is `cache` beside it, otherwise `cache_folder()`.
    """
    return workdir.parent / "cache" if isinstance(workdir, Address) else cache_folder()


def claim_workdir(
    workdir: Path,
    config: ConfigDict,
    name: str,
    preset: str,
    base: Path,
    changed: Sequence[str] = (),
    method: Mapping[str, Any] | None = None,
    start: Mapping[str, Any] | None = None,
    revisions: Mapping[str, str] | None = None,
) -> None:
    """Writes config.json, or checks that the run there may go on with this config and method.

    Fields of `field_rules.CHANGEABLE` may differ. A change is logged, `config` in config.json gets
    the new values, and `history` one more entry: {"step": the newest checkpoint, "date": UTC,
    "changes": {field: [old, new]}}, with None for a field that was not there, or is no more.

    `base` is the folder of the base policy; `changed`, the fields with another value than in the
    preset; `method`, what `train.method.describe` says; `start`, what `find_start` found;
    `revisions`, `Task.revisions`. Raises ValueError, with what differs, for the workdir of another
    config or method.
    """
    path, resolved, method = workdir / "config.json", json.loads(config.to_json()), method or {}
    if not path.exists():
        record = {
            "name": name,
            "preset": preset,
            "config": resolved,
            "changed": list(changed),
            "method": dict(method),
            **({"start": dict(start)} if start else {}),
            **({"revisions": dict(revisions)} if revisions else {}),
            "base": str(base),
            "versions": {package: importlib.metadata.version(package) for package in _PACKAGES},
            "git": _git_revision(),
            "device": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        }
        write_json(path, record)
        return
    changes = require_same_config(workdir, resolved, "--workdir")
    record = read_json(path)
    parts = differing_fields(dict(method), record.get("method", {}), "method.")
    if parts and not newest_saved_step(workdir):  # a run without a step may get other functions
        record["method"], parts = dict(method), []
        write_json(path, record)
    if parts:
        named = "; ".join(parts).replace("'(absent)'", "ours")
        raise ValueError(
            f"{workdir} belongs to a run with other functions ({named}); name another workdir, or "
            "pass the method that it had"
        )
    if not changes:
        return
    step, now = newest_saved_step(workdir), datetime.datetime.now(datetime.UTC)
    entry = {"step": step, "date": now.isoformat(timespec="seconds"), "changes": changes}
    history = [*record.get("history", []), entry]
    # A comparison takes a run with a report for a finished one.
    if {"train.steps", "train.stop_after"} & {*changes}:
        (workdir / "report.html").unlink(missing_ok=True)
    record |= {"config": resolved, "changed": list(changed), "history": history}
    write_json(path, record)
    said = "; ".join(f"{name}: {new!r} instead of {old!r}" for name, (old, new) in changes.items())
    _LOG.info("%s goes on from step %d with %s (kept in config.json)", workdir, step, said)


def known_revisions(workdir: Path) -> dict[str, str]:
    """The commits of data sets of the hub that the run in `workdir` began with; {} for no run."""
    path = workdir / "config.json"
    return read_json(path).get("revisions", {}) if path.is_file() else {}


def require_same_config(workdir: Path, config: dict, option: str) -> dict[str, list]:
    """The fields that change if the run in `workdir` goes on with `config`: {field: [old, new]}.

    Raises ValueError, with the differing fields, for a run of another config; and for a train.steps
    that is no longer possible for the run. `option` of the command line names another place.
    """
    theirs = read_json(workdir / "config.json")["config"]
    fixed = fixed_fields(config)  # fields that are newer than the run are not compared
    if fields := differing_fields(fixed, filled_up(fixed_fields(theirs), fixed)):
        raise ValueError(
            f"{workdir} belongs to a run with another config ({'; '.join(fields)}); name "
            f"another {option}, or set these fields as they were"
        )
    old, new = flat_fields(theirs), flat_fields(config)
    changes = {f: [old.get(f), value] for f, value in new.items() if old.get(f) != value}
    changes |= {f: [old[f], None] for f in GONE if f in old}
    if "train.steps" in changes:
        before, steps = changes["train.steps"]
        decay, done = config["train"]["decay"], newest_saved_step(workdir)
        remedy = ""
        if decay != "none":
            remedy = f"has {before}, over which its learning rate decays (train.decay = {decay})"
            remedy += f": set it to {before}"
        elif steps < done:
            remedy = f"has done {done} steps: use {done} or more"
        if remedy:
            run = f"train.steps is {steps}; the run in {workdir}"
            raise ValueError(f"{run} {remedy}, or name another {option}")
    return changes


def newest_saved_step(workdir: Path) -> int:
    """The step of the newest checkpoint, by the names of their folders; 0 where there is none."""
    return max(saved_steps(workdir / "checkpoints"), default=0)


def config_at_start(record: Mapping[str, Any]) -> dict[str, Any]:
    """The resolved config with which a run began; `record` is its config.json."""
    fields = flatten_dict(record["config"], sep=".")
    for entry in reversed(record.get("history", [])):
        fields |= {field: old for field, (old, _) in entry["changes"].items()}
    return unflatten_dict({f: value for f, value in fields.items() if value is not None}, sep=".")


def _git_revision() -> str | None:
    """The commit of the checkout that holds the package; None outside of a checkout."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

"""The folder of a run, and the one of what runs share."""

import importlib.metadata
import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from permix_jax.fields import differing_fields
from permix_jax.files import read_json, write_json

_PACKAGES = ("permix_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "transformers")


def cache_folder() -> Path:
    """Where bases, converted weights and compiled programs are kept: $PERMIX_CACHE, or ~/.cache."""
    return Path(os.environ.get("PERMIX_CACHE") or Path.home() / ".cache" / "permix_jax").absolute()


def use_compilation_cache() -> None:
    """Keeps compiled programs in the cache folder, unless JAX was told of another place."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        # JAX keeps what took a second; small models have dozens of programs that take less.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


def claim_workdir(
    workdir: Path,
    config: ConfigDict,
    name: str,
    preset: str,
    base: Path,
    changed: Sequence[str] = (),
    method: Mapping[str, Any] | None = None,
) -> None:
    """Writes config.json, or checks that the one there is of the same config and method.

    `base` is the folder of the base policy, with the log of its SFT; `changed`, the fields that
    have another value than in the preset; `method`, what `training.method.describe` says of it.

    Raises ValueError, with what differs, for the workdir of another config or method.
    """
    path, resolved = workdir / "config.json", json.loads(config.to_json())
    if path.exists():
        require_same_config(workdir, resolved, "--workdir")
        _require_same_method(workdir, dict(method or {}))
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


def require_same_config(workdir: Path, config: dict, option: str) -> None:
    """Raises ValueError, with the differing fields, where a run of another config is in `workdir`.

    A run may go on, up to rounding, on another mesh: that field is not compared.
    `option`: of the command line, that names another place.
    """
    theirs = read_json(workdir / "config.json", "name the workdir of a run")["config"]
    if fields := differing_fields(*({**c, "mesh": None} for c in (config, theirs))):
        raise ValueError(
            f"{workdir} belongs to a run with another config ({'; '.join(fields)}); name "
            f"another {option}, or set these fields as they were"
        )


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

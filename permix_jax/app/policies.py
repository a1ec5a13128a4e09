"""The policies that a config, a run or a command means: untrained, the base, and trained."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.best import chosen_step, last_step
from permix_jax.app.validation import require_mesh_fits, require_valid
from permix_jax.app.workdir import cache_folder, config_at_start
from permix_jax.core import files
from permix_jax.core.field_rules import call_with, fixed_fields
from permix_jax.core.fields import differing_fields, filled_up, names_in
from permix_jax.core.keys import key
from permix_jax.core.places import place_of, relative_name
from permix_jax.evaluation.results import read_json
from permix_jax.formats.pretrained import load_pretrained, open_pretrained
from permix_jax.models.config import Lora, ModelConfig
from permix_jax.models.params import create_params
from permix_jax.models.policy import Policy, StoredPolicy
from permix_jax.models.transformer import Decoder
from permix_jax.tasks.embedded_world import build_tokenizer
from permix_jax.train.checkpoints import newest_step
from permix_jax.train.run import base_is_stored, base_policy, checkpoint

# Fields of the model that change how a policy is computed, and not which policy it is.
_DTYPES = {"dtype", "param_dtype", "base_dtype"}


def build_policy(config: ConfigDict, cache: Path, mesh: Mesh) -> tuple[Policy, StoredPolicy]:
    """The policy that RL trains, and the untrained policy that everything starts from.

    The latter has no adapters. SFT trains all its weights, in `model.param_dtype`.
    """
    m, lora = config.model, lora_config(config)
    param_dtype = config.lora.base_dtype if lora else m.param_dtype
    if m.source:
        ignore = names_in(m.get("ignore_fields", ""))  # configs of older runs lack the field
        pretrained = open_pretrained(m.source, cache, m.pad_token, m.thinking, ignore)
        # Configs of older runs lack the field `attention`.
        fields = {"dtype": m.dtype, "remat": m.remat, "attention": m.get("attention", "auto")}
        shape = replace(pretrained.config, param_dtype=param_dtype, **fields)
        tokenizer, end_tokens = pretrained.tokenizer, pretrained.end_tokens
    else:
        tokenizer = build_tokenizer(assistant=config.task.get("plain_style_share", 0) > 0)
        end_tokens = (tokenizer.eos_token_id,)
        vocabulary = len(tokenizer)
        shape = call_with(ModelConfig, m, vocab_size=vocabulary, lora=None, param_dtype=param_dtype)
    policy = Policy(Decoder(replace(shape, lora=lora)), tokenizer, end_tokens)
    initial_dtype = m.param_dtype if config.sft.steps else param_dtype
    initial = Decoder(replace(shape, lora=None, param_dtype=initial_dtype))

    def load() -> dict:
        if m.source:
            return load_pretrained(pretrained, initial, mesh)
        return create_params(initial, key(config.seed, "init"), mesh)

    name = m.source or "the untrained policy"
    return policy, StoredPolicy(name, policy._replace(model=initial), mesh, load)


def lora_config(config: ConfigDict) -> Lora | None:
    """The adapters that the config asks for."""
    asked = config.lora
    return Lora(asked.rank, asked.alpha, tuple(names_in(asked.targets))) if asked.rank else None


def config_of_model(config: ConfigDict, source: str) -> ConfigDict:
    """The config of a Hugging Face folder or hub id as it is, without adapters and SFT."""
    config = config.copy_and_resolve_references()
    config.model.source, config.lora.rank, config.sft.steps = source, 0, 0
    config.train.start = ""
    return config


def named_model(config: ConfigDict, source: str, mesh: Mesh) -> StoredPolicy:
    """A pretrained model as it is, in the dtypes of the config."""
    policy, model = build_policy(config_of_model(config, source), cache_folder(), mesh)
    require_mesh_fits(policy.model.config, config)
    return model


def policy_and_base(
    config: ConfigDict, base: str | Path, mesh: Mesh
) -> tuple[Policy, StoredPolicy]:
    """The policy that a run trains, and its base; `base` is the base's folder, if it has one."""
    policy, initial = build_policy(config, cache_folder(), mesh)
    return policy, base_policy(policy, initial, place_of(base) if base_is_stored(config) else None)


def policy_of_run(workdir: Path, mesh: Mesh) -> StoredPolicy:
    """The policy at the end of a finished run.

    Raises FileNotFoundError without a run in `workdir`, or a checkpoint of its last step or base.
    """
    record = files.read_json(workdir / "config.json", "name the workdir of a finished run")
    config = ConfigDict(record["config"])
    policy, base = policy_and_base(config, record["base"], mesh)
    last = newest_step(workdir / "checkpoints", last_step(config, workdir))
    if config.lora.rank and base_is_stored(config):
        newest_step(place_of(record["base"]) / "checkpoints")
    return checkpoint(policy, base, workdir, last)


def run_identity(workdir: Path, step: int, folder: Path) -> dict[str, Any]:
    """Which checkpoint the evaluation in `folder` is of.

    The run is named by its path from `folder`, because both may be moved together, or by its
    address, and by the config that it began with.
    """
    config = json.dumps(config_at_start(read_json(workdir / "config.json")), sort_keys=True)
    return {
        "run": relative_name(workdir, folder),
        "run_config_sha256": hashlib.sha256(config.encode()).hexdigest(),
        "step": step,
    }


@dataclass(frozen=True)
class Subject:
    """The policy that a command asks. It is not opened yet."""

    config: ConfigDict  # the command's, with what the run's base comes from
    workdir: Path
    base: Path  # the folder of the base policy
    step: int  # of the run's checkpoint; at 0 the base is asked
    folder: Path  # gets what the command writes
    of: dict[str, Any]  # which policy it is; plain values
    name: str  # what people call it

    def open(self, mesh: Mesh) -> tuple[StoredPolicy, StoredPolicy]:
        """The policy, and the base of its run, which measures its fidelity."""
        policy, base = policy_and_base(self.config, self.base, mesh)
        return replace(checkpoint(policy, base, self.workdir, self.step), name=self.name), base


def subject_of_model(config: ConfigDict, source: str, folder: Path) -> Subject:
    """A model as it is. It counts as the base of a run that has not begun."""
    config = config_of_model(config, source)
    require_valid(config)
    return Subject(config, folder, folder, 0, folder, {"model": source}, source)


def subject_of_run(
    config: ConfigDict,
    workdir: Path,
    step: int | str | None,
    folder: Path | None,
    parts: Sequence[str] = (),
) -> Subject:
    """A checkpoint by its step (None: the newest; 0: the base; "best": as `chosen_step`).

    The results go to `folder`; None: `eval/<step>` of the workdir. In `parts` ("seed" or "task")
    the config must be the run's, as in model and LoRA. Raises FileNotFoundError or ValueError for
    an impossible config, no run or checkpoint, or another policy.
    """
    require_valid(config)
    record = read_json(workdir / "config.json")
    _require_same_policy(config, record, workdir, parts)
    if step != 0:
        step = chosen_step(workdir, step)
    config = config.copy_and_resolve_references()
    config.sft.steps = record["config"]["sft"]["steps"]
    config.train.start = record["config"]["train"].get("start", "")
    folder = folder or workdir / "eval" / str(step)
    of, name = run_identity(workdir, step, folder), f"step {step}"
    return Subject(config, workdir, place_of(record["base"]), step, folder, of, name)


def _require_same_policy(
    config: ConfigDict, record: dict, workdir: Path, parts: Sequence[str]
) -> None:
    """Raises ValueError, with the differing fields, unless the config is of the run's policy."""

    def deciding(config: dict) -> dict:
        whole = fixed_fields(config)
        kept = {part: whole[part] for part in (*parts, "model", "lora")}
        for part in ("model", "lora"):
            kept[part] = {name: x for name, x in whole[part].items() if name not in _DTYPES}
        if "task" in parts and not whole["data"]["test"]:
            kept["data"] = whole["data"]
        return kept

    mine = deciding(config.to_dict())
    theirs = filled_up(deciding(record["config"]), mine)  # newer fields are not compared
    if fields := differing_fields(mine, theirs):
        made = f"{record['name']}.py" + (f":{record['preset']}" if record.get("preset") else "")
        raise ValueError(
            f"{workdir} is a run of another policy or world, made with {made} "
            f"({'; '.join(fields)}); set these fields as the run has them, or leave --config out, "
            "for the run's own"
        )

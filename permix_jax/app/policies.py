"""Which policy a config means, and its parameters: before training, as the base, and trained."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.core.field_rules import call_with
from permix_jax.core.fields import names_in
from permix_jax.core.files import read_json
from permix_jax.core.keys import key
from permix_jax.formats.pretrained import load_pretrained, open_pretrained
from permix_jax.models.config import Lora, ModelConfig
from permix_jax.models.params import create_params, join, without_lora
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.tasks.embedded_world import build_tokenizer
from permix_jax.train.checkpoints import load_params, newest_step


def build_policy(
    config: ConfigDict, cache: Path, mesh: Mesh
) -> tuple[Policy, Callable[[Decoder], dict]]:
    """The policy that GRPO trains, and what gives the parameters it has before any training.

    The latter takes the decoder (which may differ in `param_dtype`) and loads or makes them.
    """
    m = config.model
    lora, param_dtype = lora_config(config), m.param_dtype
    if lora:
        param_dtype = config.lora.base_dtype
    if m.source:
        # Runs made before the field was there have configs without it.
        ignore = names_in(m.get("ignore_fields", ""))
        found = open_pretrained(
            m.source, cache, param_dtype, m.dtype, m.remat, m.pad_token, m.thinking, ignore
        )
        shape = replace(found.config, lora=lora)
        policy = Policy(Decoder(shape), found.tokenizer, found.end_tokens)
        return policy, lambda model: load_pretrained(found, model, mesh)
    tokenizer = build_tokenizer()
    given = {"vocab_size": len(tokenizer), "lora": lora, "param_dtype": param_dtype}
    shape = call_with(ModelConfig, m, **given)
    policy = Policy(Decoder(shape), tokenizer, (tokenizer.eos_token_id,))
    return policy, lambda model: create_params(model, key(config.seed, "init"), mesh)


def lora_config(config: ConfigDict) -> Lora | None:
    """The adapters that the config asks for."""
    if config.lora.rank == 0:
        return None
    return Lora(config.lora.rank, config.lora.alpha, tuple(names_in(config.lora.targets)))


def load_base_params(
    config: ConfigDict,
    policy: Policy,
    initial_params: Callable[[Decoder], dict],
    folder: Path,
    mesh: Mesh,
) -> dict:
    """Parameters of the base policy, where GRPO starts and what its KL refers to, without adapters.

    They come from the SFT in `folder`, or without one from where the policy comes from.
    """
    model = without_lora(policy.model)
    if config.sft.steps == 0:
        return initial_params(model)
    return load_params(folder / "checkpoints", model, mesh)


def load_trained_params(
    policy: Policy, load_base: Callable[[], dict], workdir: Path, step: int, mesh: Mesh
) -> dict:
    """Parameters of the policy at a checkpoint of its run; adapters come with their base."""
    trained = load_params(workdir / "checkpoints", policy.model, mesh, step)
    return join(trained, load_base() if policy.model.config.lora else {})


def policy_and_base(
    record: Mapping[str, Any], cache: Path, mesh: Mesh
) -> tuple[Policy, Callable[[], dict]]:
    """The policy of the run whose config.json is `record`, and what loads its base's parameters."""
    config, base = ConfigDict(record["config"]), Path(record["base"])
    policy, initial_params = build_policy(config, cache, mesh)
    return policy, partial(load_base_params, config, policy, initial_params, base, mesh)


def policy_of_run(workdir: Path, cache: Path, mesh: Mesh) -> tuple[Policy, Callable[[], dict]]:
    """The policy at the end of a finished run, and what loads its parameters, all of which are
    there.

    Raises:
      FileNotFoundError: no run in `workdir`, or no checkpoint of its last step or its base.
    """
    record = read_json(workdir / "config.json", "name the workdir of a finished run")
    policy, load_base = policy_and_base(record, cache, mesh)
    last = newest_step(workdir / "checkpoints", record["config"]["train"]["steps"])
    if policy.model.config.lora and record["config"]["sft"]["steps"]:
        newest_step(Path(record["base"]) / "checkpoints")
    return policy, partial(load_trained_params, policy, load_base, workdir, last, mesh)

"""A trained policy as a folder that `transformers` (or, for adapters, `peft`) loads."""

from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from ml_collections import ConfigDict
from safetensors.numpy import save_file

from permix_jax.app.best import chosen_step
from permix_jax.app.policies import policy_and_base
from permix_jax.app.templates import render
from permix_jax.app.workdir import cache_folder
from permix_jax.core.fields import flat_fields
from permix_jax.core.files import write_json, write_text
from permix_jax.core.sharding import make_mesh
from permix_jax.evaluation.results import read_evaluations, read_json
from permix_jax.formats.huggingface import config_to_hf, params_to_hf, weights
from permix_jax.formats.pretrained import is_plain
from permix_jax.formats.weights import SHARD_BYTES, write_weights
from permix_jax.models.config import ModelConfig
from permix_jax.models.params import merge_adapters
from permix_jax.models.policy import Policy
from permix_jax.report.overview import summary_table
from permix_jax.train.checkpoints import load_params
from permix_jax.train.run import base_is_stored, checkpoint


def export(
    workdir: Path, out: Path, step: int | str | None = None, dtype: str = "", adapter: bool = False
) -> None:
    """Writes the policy of a run at a checkpoint to the new folder `out`.

    Args:
      step: of the checkpoint; None: the newest; "best": that of `train.keep_best`.
      dtype: of the written weights, "float32" or "bfloat16"; "": as the run keeps them. Adapters
        are rounded when they are merged into bfloat16 weights.
      adapter: write only the LoRA adapters, for `peft`. Their base is `model.source`.
        Where the run began with another policy (SFT, --from), its base is written too, to
        `out`/base.

    Raises:
      FileNotFoundError: no run in `workdir`, or no such checkpoint.
      ValueError: `out` is there already; `adapter` for a run without any.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already; name a new folder")
    record = read_json(workdir / "config.json")
    config = ConfigDict(record["config"])
    if adapter and not config.lora.rank:
        raise ValueError(f"{workdir} trained all weights, not adapters; leave out --adapter")
    step = chosen_step(workdir, step)

    mesh = make_mesh(1, 1, 1)
    with jax.set_mesh(mesh):
        policy, base = policy_and_base(config, record["base"], mesh)
        out.mkdir(parents=True, exist_ok=True)
        if adapter:
            base_name = config.model.source
            if base_is_stored(config) or not base_name or not is_plain(base_name, cache_folder()):
                base_name = str(out / "base")
                write_model(policy, base.load_params(), dtype, out / "base")
            trained = load_params(workdir / "checkpoints", policy.model, mesh, step)
            write_peft(policy.model.config, trained, base_name, out)
            policy.tokenizer.save_pretrained(out)
        else:
            params = checkpoint(policy, base, workdir, step).load_params()
            write_model(policy, merge_adapters(policy.model, params, dtype), dtype, out)
    write_json(out / "permix_config.json", record["config"])
    write_text(out / "README.md", model_card(record, workdir, step))


def write_model(
    policy: Policy, params: dict, dtype: str, folder: Path, shard_bytes: int = SHARD_BYTES
) -> None:
    """Writes a policy as a Hugging Face folder.

    Args:
      params: without adapters.
      dtype: of the written weights; "": that of the parameters.
      shard_bytes: as in `write_weights`.
    """
    config, tokenizer = policy.model.config, policy.tokenizer
    dtype = dtype or config.param_dtype
    ends = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": list(policy.end_tokens),
        "pad_token_id": tokenizer.pad_token_id,
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", {**config_to_hf(config), **ends, "dtype": dtype})
    write_json(folder / "generation_config.json", {**ends, "do_sample": True})
    tokenizer.save_pretrained(folder)
    tensors = params_to_hf(config, params)
    write_weights(folder, ((name, tensor.astype(dtype)) for name, tensor in tensors), shard_bytes)


def write_peft(config: ModelConfig, adapters: dict, base: str, folder: Path) -> None:
    """Writes adapter_config.json, which names the base, and adapter_model.safetensors (f32)."""
    lora = config.lora
    settings = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "target_modules": list(lora.targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
    }
    write_json(folder / "adapter_config.json", settings)
    flat, tensors = flatten_dict(adapters, sep="/"), {}
    for weight in weights(config):
        if f"{weight.path}_lora_a" in flat:
            # PEFT has A as [rank, inputs] and B as [outputs, rank].
            name = f"base_model.model.{weight.name.removesuffix('.weight')}"
            a = np.asarray(flat[f"{weight.path}_lora_a"]).reshape(-1, lora.rank)
            b = np.asarray(flat[f"{weight.path}_lora_b"]).reshape(lora.rank, -1)
            tensors[f"{name}.lora_A.weight"] = np.ascontiguousarray(a.T)
            tensors[f"{name}.lora_B.weight"] = np.ascontiguousarray(b.T)
    save_file(tensors, folder / "adapter_model.safetensors")


def model_card(record: dict, workdir: Path, step: int) -> str:
    """Markdown: what the policy is, how it was trained, and what its run's evaluations say.

    `record` is the run's config.json; `step`, the checkpoint that is exported.
    """
    source = record["config"]["model"]["source"]
    named = source.count("/") == 1 and not source.startswith((".", "/", "pypi:"))
    own = flat_fields(record.get("method", {})).items()
    try:
        found = {e.step: e for e in read_evaluations(workdir)}
    except FileNotFoundError:
        found = {}
    rows = {"base": found.get(0), f"step {step}": found.get(step)}
    shown = {row: (e.stability, e.fidelity) for row, e in rows.items() if e}
    return render(
        "model_card.md.jinja",
        record=record,
        c=record["config"],
        run=workdir.resolve().name,
        step=step,
        on_hub=named and not source.endswith(".gguf"),
        functions="; ".join(f"{part}: `{function}`" for part, function in own),
        table=summary_table(shown) if step in found else "",
    )

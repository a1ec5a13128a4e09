"""What a config must satisfy, checked before anything is built."""

from ml_collections import ConfigDict

from permix_jax.core.between_fields import broken_between_fields
from permix_jax.core.config_fields import FIELDS
from permix_jax.core.field_rules import valid_field
from permix_jax.models.config import ModelConfig


def require_valid(config: ConfigDict) -> None:
    """Raises ValueError, one line with field, value and remedy, for the first impossible value."""
    for field in FIELDS:
        if "reproduce" in config or not field.startswith("reproduce."):
            valid_field(config, field)
    for field, remedy in broken_between_fields(config):
        raise ValueError(f"{field} is {valid_field(config, field)!r}; {remedy}")


def rounding_warning(config: ConfigDict) -> str:
    """A warning if the run trains weights that are kept in bf16; "" otherwise.

    Neighbours in bf16 differ by 0.4 to 0.8 % of themselves, and an update of AdamW is about the
    learning rate. At 1e-6 nearly every weight is rounded back to its old value.
    """
    trains_all = config.sft.steps or not config.lora.rank
    if not trains_all or config.model.param_dtype == "float32":
        return ""
    return (
        f"model.param_dtype is {config.model.param_dtype!r}: most updates are smaller than the "
        "rounding of a bf16 weight, and are lost; use float32, or where memory is short lora.rank "
        "= 16 with sft.steps = 0, which trains f32 adapters on a base in bf16"
    )


def require_model_fits(model: ModelConfig, config: ConfigDict) -> None:
    """Raises ValueError where answers outgrow the model's context; and as `require_mesh_fits`."""
    prompt = config.rollout.max_prompt_tokens
    asked = {"rollout": True, "sft": config.sft.steps, "eval": config.eval.max_new_tokens}
    for part in (part for part, there in asked.items() if there):
        length = prompt + config[part].max_new_tokens
        if model.max_context and length > model.max_context:
            raise ValueError(
                f"rollout.max_prompt_tokens + {part}.max_new_tokens is {length}, over the model's "
                f"context of {model.max_context}; lower one of them"
            )
    require_mesh_fits(model, config)


def require_mesh_fits(model: ModelConfig, config: ConfigDict) -> None:
    """Raises ValueError where the mesh cuts an axis of the model into unequal parts.

    More devices than key/value heads may share them: each head is then on several.
    """
    by_tensor = ("vocab_size", "num_heads", "num_kv_heads", "mlp_dim")
    for field, names in ("mesh.tensor", by_tensor), ("mesh.fsdp", ("embed_dim",)):
        devices = valid_field(config, field)
        for name in names:
            size, repeated = getattr(model, name), name == "num_kv_heads"
            if size % devices and not (repeated and devices % size == 0):
                multiple = ", or be a multiple of it" if repeated else ""
                raise ValueError(
                    f"{field} is {devices}; it must divide the model's {name} of {size}{multiple}"
                )

"""A tiny model with random weights and SmolLM2's chat template, as a Hugging Face folder."""

import json
from pathlib import Path

from chat_templates import FAMILIES, write_tokenizer

from permix_jax.core.keys import key
from permix_jax.core.sharding import make_mesh
from permix_jax.formats.huggingface import config_to_hf, params_to_hf
from permix_jax.formats.weights import write_weights
from permix_jax.models.config import ModelConfig
from permix_jax.models.params import create_params
from permix_jax.models.transformer import Decoder


def write_model(folder: Path, seed: int = 0, max_context: int | None = None) -> dict:
    """Writes it into the new folder; returns its parameters."""
    folder.mkdir()
    size = write_tokenizer(folder, FAMILIES["smollm2"])
    decoder = Decoder(ModelConfig(size, 16, 1, 2, 1, 8, 24, max_context=max_context))
    (folder / "config.json").write_text(json.dumps(config_to_hf(decoder.config)))
    params = create_params(decoder, key(seed, "init"), make_mesh(1, 1, 1))
    write_weights(folder, params_to_hf(decoder.config, params))
    return params

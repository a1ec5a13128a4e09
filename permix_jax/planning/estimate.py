"""Bytes and FLOPs of a step's programs in seconds: without compiling, and without all layers."""

from dataclasses import replace

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.models.config import ModelConfig
from permix_jax.models.params import split_trained
from permix_jax.models.transformer import Decoder
from permix_jax.planning.compiled import Arguments, bytes_per_chip, distinct_prompts, step_programs
from permix_jax.planning.costs import cache_bytes, width


def traced_flops(config: ConfigDict, model: Decoder, mesh: Mesh, name: str) -> int:
    """FLOPs of all matmuls of the program `name` of a step, on all chips together.

    All layers have the same matmuls. So decoders of one and of two layers are traced, and tell what
    a layer adds. Call it within `jax.set_mesh(mesh)`.
    """

    def of(layers: int) -> int:
        _, programs = step_programs(config, _of_layers(model, layers), mesh)
        return programs[name].flops()

    one = of(1)
    return one + (model.config.num_layers - 1) * (of(2) - one)


def _of_layers(model: Decoder, layers: int) -> Decoder:
    local = tuple(i for i in model.config.local_layers if i < layers)
    return Decoder(replace(model.config, num_layers=layers, local_layers=local))


def estimated_temporaries(
    name: str, arguments: Arguments, model: ModelConfig, config: ConfigDict
) -> float:
    """About how many bytes a chip a program needs beside what stays there. KV cache included.

    It counts the weights as the matmuls take them, gradients in f32, what the forward pass keeps
    for the backward pass, and the logits of a chunk. So it is rather too low: what it refuses
    does not fit, and only the compiler knows what fits.
    """
    mesh, each, logit = config.mesh, width(model), 4 * model.vocab_size / config.mesh.tensor
    shards = mesh.data * mesh.fsdp
    weights = sum(x.size for x in jax.tree.leaves(arguments.params)) * each / mesh.tensor
    if name == "rollout":
        rows = arguments.keys.shape[0] / shards
        return weights + cache_bytes(model, config, distinct_prompts(config)) + rows * logit
    tokens = arguments.rows.tokens.shape[1] * arguments.rows.tokens.shape[2] / shards
    chunk = min(config.model.head_chunk, tokens) * logit
    if name == "score":
        return weights + chunk
    trained, _ = split_trained(Decoder(model), arguments.params)
    gradients = bytes_per_chip(trained) * 4 / width_of_params(model)
    kept = model.num_layers * tokens * kept_numbers(model, mesh.tensor) * each
    return weights + gradients + kept + 2 * chunk


def width_of_params(model: ModelConfig) -> int:
    """Bytes of a number of what is trained: adapters are always f32."""
    return 2 if model.param_dtype == "bfloat16" and not model.lora else 4


def kept_numbers(model: ModelConfig, tensor: int) -> float:
    """Numbers a token that one layer's forward pass keeps for its backward pass, on a chip.

    With full remat that is the layer's input; with dots also the outputs of its matmuls; without
    remat also what lies between them: normed states, rotated heads, the product of the MLP.
    """
    E, F, D = model.embed_dim, model.mlp_dim / tensor, model.head_dim
    heads, kept = model.num_heads * D / tensor, model.kept_heads(tensor) * D / tensor
    numbers = E
    if model.remat != "full":
        numbers += heads + 2 * kept + 2 * F + 2 * E
    if model.remat == "none":
        numbers += 2 * E + 2 * heads + 2 * kept + F
    return numbers

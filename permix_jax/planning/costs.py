"""What a program costs, counted where the compiler's own analysis counts a loop's body once."""

from math import prod

import jax
from ml_collections import ConfigDict

from permix_jax.models.config import ModelConfig


def matmul_flops(jaxpr, loop_trips: int) -> int:
    """FLOPs (2 a multiply-add) of all matmuls of a jaxpr, on all devices together.

    Scans count by their length, while loops (of unknown length) `loop_trips` times, branches by the
    dearest one.
    """
    total = 0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if eqn.primitive.name == "dot_general":
            (summed, _), _ = eqn.params["dimension_numbers"]
            sizes = eqn.invars[0].aval.shape
            total += 2 * prod(eqn.outvars[0].aval.shape) * prod(sizes[axis] for axis in summed)
            continue
        inner = [matmul_flops(x, loop_trips) for x in _inner_jaxprs(eqn)]
        if eqn.primitive.name == "cond":
            total += max(inner)
        else:
            trips = {"scan": eqn.params.get("length", 1), "while": loop_trips}
            total += trips.get(eqn.primitive.name, 1) * sum(inner)
    return total


def _inner_jaxprs(eqn):
    is_jaxpr = lambda x: hasattr(x, "eqns") or hasattr(x, "jaxpr")  # noqa: E731
    return filter(is_jaxpr, jax.tree.leaves(list(eqn.params.values()), is_leaf=is_jaxpr))


def cache_bytes(model: ModelConfig, config: ConfigDict, prompts: int) -> float:
    """Bytes a chip of the keys and values of what is sampled at once.

    prompts: of a whole step, of which `rollout.micro_batches` says how large a part that is.
    """
    r, m = config.rollout, config.mesh
    rollouts = config.train.problems_per_step * r.group_size
    tokens = prompts * r.max_prompt_tokens + rollouts * r.max_new_tokens
    token = 2 * model.num_layers * model.num_kv_heads * model.head_dim * width(model)
    return tokens * token / (m.data * m.fsdp * m.tensor) / r.micro_batches


def decode_bytes(model: ModelConfig, params: int, cache: float, config: ConfigDict) -> float:
    """Bytes a chip must read to decode one token of each row: the weights, and the whole cache.

    params: number of the model's parameters. With tied embeddings or not, every matrix but the
    input embedding is read whole.
    """
    lookup = 0 if model.tie_embeddings else model.vocab_size * model.embed_dim
    return (params - lookup) * width(model) / config.mesh.tensor + cache


def link_bytes(
    model: ModelConfig,
    params: int,
    config: ConfigDict,
    tokens: int,
    weight_passes: int,
    passes: int,
) -> float:
    """Bytes that a chip receives from its neighbours in a program.

    Each pass over the weights brings it the parts that lie on other chips of its `fsdp` group. Each
    pass over the tokens sums two outputs a layer over the `tensor` group, which takes twice the
    array (reduce-scatter and all-gather).

    Args:
      params: number of the model's parameters.
      tokens: that pass through the decoder, on all chips together.
      weight_passes: how often all weights are gathered, in the matmuls' dtype; sums of gradients
        count by their bytes.
      passes: how often all tokens go through the layers, forward or backward.
    """
    m, each = config.mesh, width(model)
    gathered = params / m.tensor * each * (m.fsdp - 1) / m.fsdp
    states = tokens / (m.data * m.fsdp) * model.embed_dim * each
    summed = 2 * model.num_layers * states * 2 * (m.tensor - 1) / m.tensor
    return weight_passes * gathered + passes * summed


def width(model: ModelConfig) -> int:
    """Bytes of a number of the model's matmuls and activations."""
    return 2 if model.dtype == "bfloat16" else 4

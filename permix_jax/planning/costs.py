"""What a program costs. The compiler's own analysis counts the body of a loop only once."""

from math import prod

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from permix_jax.models.config import ModelConfig
from permix_jax.rollout.sampler import slots_read
from permix_jax.train.programs import rollouts_per_step


def matmul_flops(jaxpr, loop_trips: float) -> int:
    """FLOPs (2 a multiply-add) of all matmuls of a jaxpr, on all devices together.

    The body of a scan counts as often as it runs. That of a while loop counts as often as its
    condition says, if that compares a counter with a constant, and else `loop_trips` times. Of
    several branches the dearest one counts. A Pallas kernel counts by the flops that it states, on
    each device of a `shard_map`.
    """
    return round(_matmul_flops(jaxpr, loop_trips))


def _matmul_flops(jaxpr, loop_trips: float) -> float:
    total = 0
    for eqn in getattr(jaxpr, "jaxpr", jaxpr).eqns:
        if eqn.primitive.name == "dot_general":
            (summed, _), _ = eqn.params["dimension_numbers"]
            sizes = eqn.invars[0].aval.shape
            total += 2 * prod(eqn.outvars[0].aval.shape) * prod(sizes[axis] for axis in summed)
            continue
        if eqn.primitive.name == "pallas_call" and (stated := eqn.params["cost_estimate"]):
            total += stated.flops
            continue
        values = jax.tree.leaves(list(eqn.params.values()), is_leaf=_is_jaxpr)
        inner = [_matmul_flops(x, loop_trips) for x in values if _is_jaxpr(x)]
        if eqn.primitive.name == "cond":
            total += max(inner)
        else:
            total += _trips(eqn, loop_trips) * sum(inner)
    return total


def _trips(eqn, loop_trips: float) -> float:
    """How often an operation runs the jaxprs in it."""
    if eqn.primitive.name == "scan":
        return eqn.params["length"]
    if eqn.primitive.name == "shard_map":
        return eqn.params["mesh"].size
    if eqn.primitive.name != "while":
        return 1
    condition = eqn.params["cond_jaxpr"].jaxpr.eqns
    limits = [x.invars[1] for x in condition if x.primitive.name == "lt"]
    known = [
        int(x.val)
        for x in limits
        if hasattr(x, "val") and jnp.issubdtype(x.aval.dtype, jnp.integer)
    ]
    return max(known, default=loop_trips)


def _is_jaxpr(x) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


def step_tokens(config: ConfigDict, prompts: int) -> int:
    """Tokens of a step's rollouts at full length; `prompts` is the number of distinct prompts."""
    r = config.rollout
    return prompts * r.max_prompt_tokens + rollouts_per_step(config) * r.max_new_tokens


def cache_bytes(model: ModelConfig, config: ConfigDict, prompts: int) -> float:
    """Bytes a chip of the keys and values of one of a step's `rollout.micro_batches` parts."""
    m = config.mesh
    heads = model.kept_heads(m.tensor)
    token = 2 * model.num_layers * heads * model.head_dim * width(model)
    chips = m.data * m.fsdp * m.tensor
    return step_tokens(config, prompts) * token / chips / config.rollout.micro_batches


def read_share(config: ConfigDict, prompts: int) -> float:
    """Which share of the cache (`cache_bytes`) a token reads, on average over a completion.

    It reads all of the prompts. Call it within `jax.set_mesh(mesh)`.
    """
    r = config.rollout
    own = rollouts_per_step(config) * slots_read(r.max_new_tokens)
    return (prompts * r.max_prompt_tokens + own) / step_tokens(config, prompts)


def decode_bytes(model: ModelConfig, params: int, cache: float, config: ConfigDict) -> float:
    """Bytes that a chip reads to decode one token of each row: the weights, and of the `cache`.

    `params` is the number of the model's parameters. An embedding that is not tied to the head is
    only looked up.
    """
    lookup = 0 if model.tie_embeddings else model.vocab_size * model.embed_dim
    return (params - lookup) * width(model) / config.mesh.tensor + cache


def link_bytes(
    model: ModelConfig,
    params: int,
    config: ConfigDict,
    tokens: int,
    weight_passes: float,
    passes: int,
) -> float:
    """Bytes that a chip receives from its neighbours in a program.

    All `params` weights are gathered `weight_passes` times, in the dtype of the matmuls: each pass
    brings the parts that lie on other chips of its `fsdp` group. Sums of gradients count by their
    bytes. The `tokens` of all chips go through the layers `passes` times, forward or backward: each
    pass sums two outputs a layer over the `tensor` group, which takes twice the array
    (reduce-scatter and all-gather).
    """
    m, each = config.mesh, width(model)
    gathered = params / m.tensor * each * (m.fsdp - 1) / m.fsdp
    states = tokens / (m.data * m.fsdp) * model.embed_dim * each
    summed = 2 * model.num_layers * states * 2 * (m.tensor - 1) / m.tensor
    return weight_passes * gathered + passes * summed


def width(model: ModelConfig) -> int:
    """Bytes of a number of the model's matmuls and activations."""
    return 2 if model.dtype == "bfloat16" else 4

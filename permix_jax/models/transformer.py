"""The decoder: one Flax module, used as a pure function of (params, tokens, positions, cache).

Axis legend, for every einsum and shape comment of the package:

  B rows             U distinct prompts      S rows that share a prompt (B = U * S)
  T query positions  C key positions         E embedding
  H query heads      K key/value heads       G query heads per key/value head (H = K * G)
  D head size        F MLP hidden            V vocabulary
"""

from functools import partial
from math import prod
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from permix_jax.core.sharding import constrain, shards
from permix_jax.models import on_cpu
from permix_jax.models.attention import Blocks, PackedLayout, attend
from permix_jax.models.config import LORA_TARGETS, ModelConfig, Rope
from permix_jax.models.lm_head import logits
from permix_jax.models.on_cpu import faster_on_cpu
from permix_jax.models.operations import (
    ACTIVATIONS,
    dense,
    embed_lookup,
    gated_activation,
    rms_norm,
)
from permix_jax.models.packed_attention import Seen, attention, seen

# What the forward pass of a layer keeps for the backward pass, by `ModelConfig.remat`.
_DOTS = jax.checkpoint_policies.save_only_these_names("linear")
_REMAT_POLICIES = {"full": None, "dots": _DOTS}


class Segment(NamedTuple):
    """Keys and values of C tokens in each of some rows, which attention can read.

    layers: for each layer the keys [rows, K, D, C], after RoPE, and the values [rows, K, C, D].
      Here K is `ModelConfig.kept_heads`.
    positions: int32 [rows, C], each key's place in its row's text.
    valid: bool [rows, C]; False for padding and for slots that are not written yet.
    """

    layers: tuple[tuple[jax.Array, jax.Array], ...]
    positions: jax.Array
    valid: jax.Array

    def seen_from(self, positions: jax.Array, window: int = 0) -> jax.Array:
        """Bool [B, T, C]: whether a token at each of the positions [B, T] sees each key.

        A token sees the valid keys at its position or before it. With a window it sees only the
        last `window` positions, its own included. B is a multiple of this segment's rows: row b
        reads row b // (B / rows).
        """
        (rows, C), (B, T) = self.valid.shape, positions.shape
        keys, valid = (x[:, None, None, :] for x in (self.positions, self.valid))
        distance = positions.reshape(rows, B // rows, T, 1) - keys
        seen = valid & (distance >= 0)
        if window:
            seen &= distance < window
        return seen.reshape(B, T, C)

    def with_slots(self, new: "Segment", at: jax.Array, write: jax.Array) -> "Segment":
        """This segment with `new` in its slots from `at` on, if the scalar `write` is True."""

        def put(x, new, axis):
            old = jax.lax.dynamic_slice_in_dim(x, at, new.shape[axis], axis)
            new = jnp.where(write, new, old)
            return jax.lax.dynamic_update_slice_in_dim(x, new, at, axis)

        layers = zip(self.layers, new.layers, strict=True)
        return Segment(
            tuple((put(x[0], y[0], 3), put(x[1], y[1], 2)) for x, y in layers),
            put(self.positions, new.positions, 1),
            put(self.valid, new.valid, 1),
        )


def empty_segment(config: ModelConfig, rows: int, length: int) -> Segment:
    """A cache of `length` unwritten slots for each of `rows` rows."""

    def zeros(*shape):
        x = jnp.zeros((rows, config.kept_heads(shards("kv_heads")), *shape), config.dtype)
        return constrain(x, "batch", "kv_heads", None, None)

    D = config.head_dim
    layers = tuple((zeros(D, length), zeros(length, D)) for _ in range(config.num_layers))
    return Segment(layers, jnp.zeros((rows, length), jnp.int32), jnp.zeros((rows, length), bool))


class Older(NamedTuple):
    """What rows have written before the slots of their cache, in blocks of as many slots.

    parts: segments of B rows, each of a whole number of blocks.
    written: int32 scalar, the number of blocks that are written, counted through the parts.
    """

    parts: tuple[Segment, ...]
    written: jax.Array


class Decoder(nn.Module):
    """Computes hidden states, keys and values of tokens; `unembed` computes logits of states."""

    config: ModelConfig

    def setup(self):
        c = self.config
        vocabulary = {"vocab": c.vocab_size, "embed": c.embed_dim}
        self.embedding = _weight(self, "embedding", vocabulary, c.embed_dim)
        layer = nn.remat(Layer, policy=_REMAT_POLICIES[c.remat]) if c.remat != "none" else Layer
        self.layers = [layer(c) for _ in range(c.num_layers)]
        self.final_norm = RMSNorm(c)
        if not c.tie_embeddings:
            self.head = _weight(self, "head", vocabulary, c.embed_dim)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        valid: jax.Array,
        prefix: Segment | None = None,
        cache: Segment | None = None,
        index: jax.Array | int = 0,
        layout: PackedLayout | None = None,
        older: Older | None = None,
    ) -> tuple[jax.Array, Segment]:
        """Runs the decoder over T new tokens of each row.

        A token sees itself and the valid tokens before it, in its row's prefix and in its row's own
        segment. With a cache, the own segment is the cache with the new tokens written at slots
        index .. index+T-1. Without one, it is the new tokens alone.

        Args:
          tokens: int32 [B, T].
          positions: int32 [B, T], the tokens' places in their row's text, prefix included.
          valid: bool [B, T], False for padding (which no token sees).
          prefix: a segment of U rows, U dividing B, which is read only. Row b reads its row
            b // (B / U), so rows that share a prompt share one copy of its keys and values.
          cache: a segment of B rows, C slots.
          index: int32 scalar, the first slot to write.
          older: what the rows' own tokens wrote before the cache. It is read only, block by block.
          layout: what the tokens of packed rows see. It replaces the rule above; prefix and cache
            are None then.

        Returns:
          The hidden states [B, T, E] in `dtype`, after the final norm; and the own segment, to be
          the next call's `cache`, or the `prefix` of rows that continue these.
        """
        c = self.config
        x = embed_lookup(self.embedding, tokens, c.dtype)
        if c.embed_scale != 1:
            x = x * jnp.asarray(c.embed_scale, c.dtype)
        x = constrain(x, "batch", None, None)

        own = Segment((), positions, valid)
        if cache is not None:
            write = partial(jax.lax.dynamic_update_slice, start_indices=(0, index))
            own = Segment((), write(cache.positions, positions), write(cache.valid, valid))

        parts = older.parts if older else ()

        def view(rope: Rope, window: int) -> View:
            cos, sin = rope_angles(positions, c.head_dim, rope)
            prefix_mask = None if prefix is None else prefix.seen_from(positions, window)
            own_mask = own.seen_from(positions, window) if layout is None else None
            older_masks = tuple(part.seen_from(positions, window) for part in parts)
            packed = None if layout is None else seen(layout, window, c)
            return View(cos, sin, prefix_mask, older_masks, own_mask, packed)

        # All global layers share one view, and all local ones another.
        views = {False: view(c.rope, 0)}
        if c.local_layers:
            views[True] = view(c.local_rope, c.window)

        own_layers = []
        for i, layer in enumerate(self.layers):
            before = {"cache": cache and cache.layers[i], "prefix": prefix and prefix.layers[i]}
            before["older"] = older and ([part.layers[i] for part in parts], older.written)
            x, keys_values = layer(x, views[i in c.local_layers], index, **before)
            own_layers.append(keys_values)
        return self.final_norm(x), own._replace(layers=tuple(own_layers))

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Logits f32 [..., V] of hidden states [..., E]."""
        weight = self.embedding if self.config.tie_embeddings else self.head
        return logits(hidden, weight.astype(hidden.dtype))


class View(NamedTuple):
    """How T new tokens are rotated, and what they see: as the masks say, or as packed rows do."""

    cos: jax.Array  # f32 [B, T, D/2], as `sin`
    sin: jax.Array
    prefix_mask: jax.Array | None  # bool [B, T, C], as the two below
    older_masks: tuple[jax.Array, ...]
    own_mask: jax.Array | None
    packed: Seen | None


class Layer(nn.Module):
    """Attention and MLP. Each reads the normed residual stream and is added back to it."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, view, index, cache, prefix, older):
        c = self.config

        def post_norm(name, x):
            return RMSNorm(c, name=name)(x) if c.post_norms else x

        normed = RMSNorm(c, name="attention_norm")(x)
        before = {"cache": cache, "prefix": prefix, "older": older}
        attended, keys_values = Attention(c, name="attention")(normed, view, index, **before)
        x = x + post_norm("attention_post_norm", attended)
        mlp = MLP(c, name="mlp")(RMSNorm(c, name="mlp_norm")(x))
        x = x + post_norm("mlp_post_norm", mlp)
        return constrain(x, "batch", None, None), keys_values


class Attention(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x, view, index, cache, prefix, older):
        c = self.config
        embed = {"embed": c.embed_dim}
        heads = {"heads": c.num_heads, "head_dim": c.head_dim}
        kv_heads = {"kv_heads": c.num_kv_heads, "head_dim": c.head_dim}
        query = _linear(self, "query", x, embed, heads, c.qkv_bias)
        key = _linear(self, "key", x, embed, kv_heads, c.qkv_bias)
        value = _linear(self, "value", x, embed, kv_heads, c.qkv_bias)
        if c.qk_norm:
            query = RMSNorm(c, name="query_norm")(query)
            key = RMSNorm(c, name="key_norm")(key)
        query, key = apply_rope(query, view.cos, view.sin), apply_rope(key, view.cos, view.sin)
        key, value = _repeated(c, key), _repeated(c, value)
        key, value = jnp.moveaxis(key, 1, 3), jnp.swapaxes(value, 1, 2)
        if cache is not None:
            key = jax.lax.dynamic_update_slice(cache[0], key, (0, 0, 0, index))
            value = jax.lax.dynamic_update_slice(cache[1], value, (0, 0, index, 0))

        scale = c.head_dim**-0.5 if c.query_scale is None else c.query_scale
        if view.packed is not None:
            out = attention(query, jnp.swapaxes(key, 2, 3), value, view.packed, scale)
        else:
            before = [] if prefix is None else [(*prefix, view.prefix_mask)]
            blocks = _blocks(older, view.older_masks, key.shape[3])
            out = attend(query, [*before, (key, value, view.own_mask)], scale, blocks)
        return _linear(self, "out", out, heads, embed), (key, value)


def _blocks(older, masks: tuple[jax.Array, ...], size: int) -> list[Blocks]:
    """A layer's keys and values in `Older`, and how many blocks of each part are written."""
    parts, written = older or ([], 0)
    blocks, first = [], 0
    for (keys, values), mask in zip(parts, masks, strict=True):
        number = keys.shape[3] // size
        here = jnp.clip(written - first, 0, number)
        blocks.append(Blocks(keys, values, mask, size, here))
        first += number
    return blocks


def _repeated(config: ModelConfig, x: jax.Array) -> jax.Array:
    """Keys or values [B, T, K, D] with so many heads that each device of `tensor` has one."""
    kept = config.kept_heads(shards("kv_heads"))
    if kept == config.num_kv_heads:
        return x
    x = jnp.repeat(x, kept // config.num_kv_heads, axis=2)
    return constrain(x, "batch", None, "kv_heads", None)


class MLP(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        embed, hidden = {"embed": c.embed_dim}, {"mlp": c.mlp_dim}
        gate, up = (_linear(self, name, x, embed, hidden) for name in ("gate", "up"))
        between = gated_activation(gate, up, ACTIVATIONS[c.activation])
        return _linear(self, "down", constrain(between, "batch", None, "mlp"), hidden, embed)


class RMSNorm(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        # A fresh norm multiplies by 1, whatever the offset.
        one = nn.initializers.constant(1 - c.norm_offset)
        init = nn.with_logical_partitioning(one, ("norm",))
        scale = self.param("scale", init, (x.shape[-1],), c.param_dtype)
        scale = scale.astype(jnp.float32) + c.norm_offset
        return rms_norm(x.astype(jnp.float32), scale, c.norm_eps).astype(c.dtype)


def rope_angles(positions: jax.Array, head_dim: int, rope: Rope) -> tuple[jax.Array, jax.Array]:
    """cos and sin of each pair's angle, f32 [B, T, D/2].

    They are f32 in every model: bf16 cannot tell positions over 256 apart.
    """
    return cos_sin(positions[..., None].astype(jnp.float32) * rope_frequencies(head_dim, rope))


@faster_on_cpu(on_cpu.cos_sin)
def cos_sin(angles: jax.Array) -> tuple[jax.Array, jax.Array]:
    return jnp.cos(angles), jnp.sin(angles)


def rope_frequencies(head_dim: int, rope: Rope) -> jax.Array:
    """Radians per position, f32 [D/2]; Llama 3.1's scaling as transformers defines it."""
    frequency = rope.theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    if not rope.original_context:
        return frequency / rope.factor
    # How many wavelengths fit the original context; with many a frequency is kept, with few scaled.
    wavelengths = rope.original_context * frequency / (2 * jnp.pi)
    kept = (wavelengths - rope.low_freq_factor) / (rope.high_freq_factor - rope.low_freq_factor)
    kept = jnp.clip(kept, 0, 1)
    return kept * frequency + (1 - kept) * frequency / rope.factor


def apply_rope(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
    """Rotates each pair (x[i], x[i + D/2]) of x [B, T, heads, D] by angles [B, T, D/2]."""
    cos, sin = cos[:, :, None], sin[:, :, None]
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def _linear(
    module: nn.Module,
    name: str,
    x: jax.Array,
    inputs: dict[str, int],
    outputs: dict[str, int],
    bias: bool = False,
) -> jax.Array:
    """x [..., *inputs] times the weight `name` [*inputs, *outputs].

    If the config has an adapter for this weight, its term is added: x times `<name>_lora_a`
    [*inputs, rank] times `<name>_lora_b` [rank, *outputs], which is 0 at first.

    Args:
      inputs, outputs: the axes as {logical name: size}.
      bias: whether `<name>_bias` is added, which is 0 at first. It is a vector, as in checkpoints,
        of all `outputs`; it is cut as the first of them.
    """
    c, sum_over, fan_in = module.config, len(inputs), prod(inputs.values())
    y = dense(x, _weight(module, name, inputs | outputs, fan_in), sum_over)
    y = checkpoint_name(y, "linear")
    if c.lora and name in map(LORA_TARGETS.get, c.lora.targets):
        # Initialised as PEFT does. Adapters are f32: they are small, and so are their steps.
        def adapter(half: str, axes: dict, bound: float) -> jax.Array:
            uniform = partial(jax.random.uniform, minval=-bound, maxval=bound)
            init = nn.with_logical_partitioning(uniform, tuple(axes))
            return module.param(f"{name}_lora_{half}", init, tuple(axes.values()), jnp.float32)

        rank = {None: c.lora.rank}
        a, b = adapter("a", inputs | rank, fan_in**-0.5), adapter("b", rank | outputs, 0.0)
        y += dense(dense(x, a, sum_over), b, 1) * (c.lora.alpha / c.lora.rank)
    if bias:
        sizes = tuple(outputs.values())
        init = nn.with_logical_partitioning(nn.initializers.zeros_init(), (next(iter(outputs)),))
        added = module.param(f"{name}_bias", init, (prod(sizes),), c.param_dtype)
        # In f32, so that its gradient, a sum over all tokens, is one in f32.
        y = (y.astype(jnp.float32) + added.astype(jnp.float32).reshape(sizes)).astype(y.dtype)
    return y


def _weight(module: nn.Module, name: str, axes: dict, fan_in: int) -> jax.Array:
    """A parameter with axes {logical name: size}, drawn from N(0, 1/fan_in)."""
    init = nn.with_logical_partitioning(nn.initializers.normal(fan_in**-0.5), tuple(axes))
    return module.param(name, init, tuple(axes.values()), module.config.param_dtype)

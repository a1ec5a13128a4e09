"""The decoder: one Flax module, used as a pure function of (params, tokens, positions, cache).

Axis legend, for every einsum and shape comment of the package:

  B rows             U distinct prompts      S rows that share a prompt (B = U * S)
  T query positions  C key positions         E embedding
  H query heads      K key/value heads       G query heads per key/value head (H = K * G)
  D head size        F MLP hidden            V vocabulary
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from permix_jax.models.config import ModelConfig
from permix_jax.sharding import constrain


class Segment(NamedTuple):
    """A stretch of keys and values that attention can read.

    layers: per layer (keys, values), each [rows, C, K, D], keys with RoPE applied.
    valid: bool [rows, C]; False for padding and for slots not written yet.
    """

    layers: tuple[tuple[jax.Array, jax.Array], ...]
    valid: jax.Array


def empty_segment(config: ModelConfig, rows: int, length: int) -> Segment:
    """A cache of `length` unwritten slots for each of `rows` rows."""
    shape = (rows, length, config.num_kv_heads, config.head_dim)
    zeros = lambda: constrain(jnp.zeros(shape, config.dtype), "batch", None, "kv_heads", None)  # noqa: E731
    layers = tuple((zeros(), zeros()) for _ in range(config.num_layers))
    return Segment(layers, jnp.zeros((rows, length), bool))


class Decoder(nn.Module):
    """Token ids in, final hidden states and keys/values out; `unembed` turns states into logits."""

    config: ModelConfig

    def setup(self):
        c = self.config
        vocabulary = (c.vocab_size, c.embed_dim), ("vocab", "embed"), c.embed_dim
        self.embedding = _weight(self, "embedding", *vocabulary)
        layer = nn.remat(Layer) if c.remat else Layer
        self.layers = [layer(c) for _ in range(c.num_layers)]
        self.final_norm = RMSNorm(c)
        if not c.tie_embeddings:
            self.head = _weight(self, "head", *vocabulary)

    def __call__(
        self,
        tokens: jax.Array,
        positions: jax.Array,
        valid: jax.Array,
        prefix: Segment | None = None,
        cache: Segment | None = None,
        index: jax.Array | int = 0,
    ) -> tuple[jax.Array, Segment]:
        """Runs the decoder over T new tokens of each row.

        A token sees the valid tokens of its row's prefix, and the valid tokens of its own segment
        up to itself. Its own segment is `cache` with the new tokens written at slots
        index .. index+T-1, or, without a cache, just the new tokens.

        Args:
          tokens: int32 [B, T].
          positions: int32 [B, T], for RoPE.
          valid: bool [B, T], False for padding (which no token sees).
          prefix: read-only segment of U rows, U dividing B: row b reads prefix row b // (B / U),
            so rows that share a prompt share one copy of its keys and values.
          cache: segment of B rows, C slots.
          index: int32 scalar, the first slot to write.

        Returns:
          hidden [B, T, E] in `dtype`, after the final norm; and the own segment, which serves as
          the next call's `cache`, or as the `prefix` of rows that continue these.
        """
        c = self.config
        x = constrain(self.embedding.astype(c.dtype)[tokens], "batch", None, None)
        rope = rope_angles(positions, c.head_dim, c.rope_theta)

        if cache is not None:
            valid = jax.lax.dynamic_update_slice(cache.valid, valid, (0, index))
        slots = jnp.arange(valid.shape[1])
        own_mask = valid[:, None, :] & (slots <= index + jnp.arange(tokens.shape[1])[:, None])

        own_layers = []
        for i, layer in enumerate(self.layers):
            x, own = layer(
                x,
                rope,
                own_mask,
                index,
                cache=cache and cache.layers[i],
                prefix=prefix and prefix.layers[i],
                prefix_valid=prefix and prefix.valid,
            )
            own_layers.append(own)
        return self.final_norm(x), Segment(tuple(own_layers), valid)

    def unembed(self, hidden: jax.Array) -> jax.Array:
        """Logits f32 [..., V] of hidden states [..., E]."""
        weight = self.embedding if self.config.tie_embeddings else self.head
        return jnp.einsum(
            "...e,ve->...v",
            hidden,
            weight.astype(hidden.dtype),
            preferred_element_type=jnp.float32,
        )


class Layer(nn.Module):
    """Attention and MLP, each on the normed residual stream and added back to it."""

    config: ModelConfig

    @nn.compact
    def __call__(self, x, rope, own_mask, index, cache, prefix, prefix_valid):
        attended, own = Attention(self.config, name="attention")(
            RMSNorm(self.config, name="attention_norm")(x),
            rope,
            own_mask,
            index,
            cache,
            prefix,
            prefix_valid,
        )
        x = x + attended
        x = x + MLP(self.config, name="mlp")(RMSNorm(self.config, name="mlp_norm")(x))
        return constrain(x, "batch", None, None), own


class Attention(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x, rope, own_mask, index, cache, prefix, prefix_valid):
        c = self.config
        E, H, K, D = c.embed_dim, c.num_heads, c.num_kv_heads, c.head_dim
        q_weight = _weight(self, "query", (E, H, D), ("embed", "heads", "head_dim"), E)
        k_weight = _weight(self, "key", (E, K, D), ("embed", "kv_heads", "head_dim"), E)
        v_weight = _weight(self, "value", (E, K, D), ("embed", "kv_heads", "head_dim"), E)
        o_weight = _weight(self, "out", (H, D, E), ("heads", "head_dim", "embed"), H * D)

        query = apply_rope(jnp.einsum("bte,ehd->bthd", x, q_weight.astype(c.dtype)), rope)
        key = apply_rope(jnp.einsum("bte,ekd->btkd", x, k_weight.astype(c.dtype)), rope)
        value = jnp.einsum("bte,ekd->btkd", x, v_weight.astype(c.dtype))
        if cache is not None:
            key = jax.lax.dynamic_update_slice(cache[0], key, (0, index, 0, 0))
            value = jax.lax.dynamic_update_slice(cache[1], value, (0, index, 0, 0))

        segments = [(key, value, own_mask)]
        if prefix is not None:
            segments.insert(0, (*prefix, prefix_valid[:, None, :]))
        out = attend(query, segments)
        return jnp.einsum("bthd,hde->bte", out, o_weight.astype(c.dtype)), (key, value)


def attend(query: jax.Array, segments: list[tuple[jax.Array, jax.Array, jax.Array]]) -> jax.Array:
    """Softmax attention over the union of several segments of keys.

    Args:
      query: [B, T, H, D].
      segments: (keys [U, C, K, D], values [U, C, K, D], mask bool [U, T or 1, C]) with U dividing
        B and K dividing H. Row b of the query reads row b // (B / U) of the segment, which is
        never copied per row.

    Returns:
      [B, T, H, D] in the query's dtype.
    """
    B, T, H, D = query.shape
    scores = []
    for keys, _, mask in segments:
        U, C, K, _ = keys.shape
        grouped = query.reshape(U, B // U, T, K, H // K, D)
        score = jnp.einsum("ustkgd,uckd->uskgtc", grouped, keys, preferred_element_type=jnp.float32)
        score = jnp.where(mask[:, None, None, None], score * D**-0.5, -1e30)
        scores.append(score.reshape(B, K, H // K, T, C))
    # One softmax over the concatenated keys: cheaper to read than merging by log-sum-exp, and
    # the scores, unlike the keys, exist once per row anyway.
    weights = jax.nn.softmax(jnp.concatenate(scores, axis=-1), axis=-1).astype(query.dtype)

    out, start = 0, 0
    for keys, values, _ in segments:
        U, C, K, _ = keys.shape
        part = weights[..., start : start + C].reshape(U, B // U, K, H // K, T, C)
        out += jnp.einsum("uskgtc,uckd->ustkgd", part, values).reshape(B, T, H, D)
        start += C
    return out


class MLP(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        E, F = c.embed_dim, c.mlp_dim
        gate = _weight(self, "gate", (E, F), ("embed", "mlp"), E)
        up = _weight(self, "up", (E, F), ("embed", "mlp"), E)
        down = _weight(self, "down", (F, E), ("mlp", "embed"), F)
        hidden = nn.silu(x @ gate.astype(c.dtype)) * (x @ up.astype(c.dtype))
        return constrain(hidden, "batch", None, "mlp") @ down.astype(c.dtype)


class RMSNorm(nn.Module):
    config: ModelConfig

    @nn.compact
    def __call__(self, x):
        c = self.config
        init = nn.with_logical_partitioning(nn.initializers.ones, ("norm",))
        scale = self.param("scale", init, (x.shape[-1],), c.param_dtype)
        x32 = x.astype(jnp.float32)
        normed = x32 * jax.lax.rsqrt(jnp.mean(x32**2, axis=-1, keepdims=True) + c.norm_eps)
        return (normed * scale).astype(c.dtype)


def rope_angles(positions: jax.Array, head_dim: int, theta: float) -> tuple[jax.Array, jax.Array]:
    """cos and sin, f32 [B, T, D/2]: in bf16 positions beyond 256 would collapse onto each other."""
    frequency = theta ** (-jnp.arange(0, head_dim, 2, dtype=jnp.float32) / head_dim)
    angle = positions[..., None].astype(jnp.float32) * frequency
    return jnp.cos(angle), jnp.sin(angle)


def apply_rope(x: jax.Array, rope: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Rotates each pair (x[i], x[i + D/2]) of x [B, T, heads, D] by its position's angle."""
    cos, sin = (r[:, :, None] for r in rope)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    rotated = (first * cos - second * sin, second * cos + first * sin)
    return jnp.concatenate(rotated, axis=-1).astype(x.dtype)


def _weight(module: nn.Module, name: str, shape, logical_axes, fan_in: int) -> jax.Array:
    """Describes a weight once: its name, shape, logical axes and scale (1/sqrt(fan in))."""
    init = nn.with_logical_partitioning(nn.initializers.normal(fan_in**-0.5), logical_axes)
    return module.param(name, init, shape, module.config.param_dtype)

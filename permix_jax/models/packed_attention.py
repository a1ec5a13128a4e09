"""Attention in packed rows: one function, which the platform's implementation computes.

All implementations have the same values and gradients, up to rounding:

- blocks: `attention.attend_packed`, on any platform. It is the reference.
- tpu: the Pallas kernels of `attention_tpu`, for TPUs. Rows and heads that they do not take are
  computed by blocks, which a line of the log says once.
"""

import logging
from functools import cache
from typing import NamedTuple

import jax

from permix_jax.core.sharding import platform, shards
from permix_jax.models import attention_tpu
from permix_jax.models.attention import PackedLayout, attend_packed
from permix_jax.models.attention_tpu import Visits
from permix_jax.models.config import ModelConfig

_LOG = logging.getLogger(__name__)


class Seen(NamedTuple):
    """What the tokens of packed rows see in all layers of one window.

    window: how many positions a token sees, itself included; 0: all. May be traced.
    visits: what the kernels for TPUs read of it; None: blocks compute it.
    """

    layout: PackedLayout
    window: int | jax.Array
    visits: Visits | None


def seen(layout: PackedLayout, window: int, model: ModelConfig) -> Seen:
    """Chooses the implementation: as `model.attention` says, or by the platform of the mesh.

    Raises ValueError as `require_attention`.
    """
    require_attention(model.attention, platform())
    wanted = platform() if model.attention == "auto" else model.attention
    tile = _tile(layout, model) if wanted == "tpu" else 0
    return Seen(layout, window, attention_tpu.visits(layout, window, tile) if tile else None)


def attention(
    query: jax.Array, keys: jax.Array, values: jax.Array, seen: Seen, scale: float
) -> jax.Array:
    """Softmax attention of each token to its own sequence and to its prompt, up to itself.

    Args and result as in `attention.attend_packed`.
    """
    if seen.visits is None:
        return attend_packed(query, keys, values, seen.layout, seen.window, scale)
    return attention_tpu.attend_tiles(query, keys, values, seen.visits, scale)


def require_attention(name: str, platform: str) -> None:
    """Raises ValueError if a platform (cpu, gpu or tpu) lacks the implementation `name`."""
    if name == "tpu" != platform:
        raise ValueError(
            f"model.attention is 'tpu', but the program is for a {platform}; use auto or blocks"
        )


def _tile(layout: PackedLayout, model: ModelConfig) -> int:
    """Tokens of a tile of the kernels for TPUs; 0 if they do not take the rows or the heads."""
    group, (B, T) = model.num_heads // model.kept_heads(shards("kv_heads")), layout.positions.shape
    tile = attention_tpu.tile_of(layout, group, model.head_dim, model.dtype)
    if B % shards("batch"):
        tile = 0
    if not tile:
        _say_once(
            f"packed attention: blocks compute rows of {T} tokens and {model.num_heads} heads of "
            f"size {model.head_dim} on {model.num_kv_heads}; the kernels for TPUs take rows of a "
            f"multiple of 128 tokens, and heads of size 64, 128 or 256"
        )
    return tile


@cache
def _say_once(line: str) -> None:
    _LOG.info(line)

"""Part 2 of benchmarks/accelerator.py: whether the device computes what a CPU does.

A model: its logits, log-probs and one GRPO gradient, against those that --prepare saved, in f32 and
in bf16. Attention: every implementation that the package has, against the reference in f32 on this
device. A distance is |x - y| / |y| in Euclidean norms.
"""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_record import Given, Tell, said
from accelerator_values import FILE, arithmetic_config, compute, distances, load
from jax.sharding import Mesh

from permix_jax.app.policies import build_policy
from permix_jax.app.workdir import cache_folder
from permix_jax.core.sharding import make_mesh, platform
from permix_jax.models import attention_tpu
from permix_jax.models.attention import PackedLayout, attend_packed
from permix_jax.models.packed_attention import require_attention
from permix_jax.models.packing import Ragged, pack, row_shapes

# In f32, of logits and log-probs, and of gradients, which add up more. In bf16 a device may be off
# by twice what the CPU itself is in bf16.
_F32, _F32_GRADIENT, _BF16 = 1e-4, 1e-3, 2.0
_DTYPES = ("float32", "bfloat16")


class Case(NamedTuple):
    """A shape of attention; window 0: none."""

    heads: int
    kv_heads: int
    head_dim: int
    window: int = 0


CASES = (Case(9, 3, 64), Case(16, 8, 128), Case(8, 4, 256, 300))
_TINY_CASES = (Case(4, 2, 8, 5),)


def measure(given: Given, tell: Tell) -> None:
    """Tells of the model, then of each case of attention. Raises where there are no weights."""
    mesh, missing = make_mesh(1, 1, 1), None
    with jax.set_mesh(mesh):
        try:
            _measure_model(given.need_weights(), given.tiny, mesh, tell)
        except FileNotFoundError as error:  # attention needs none
            missing = error
        for case in _TINY_CASES if given.tiny else CASES:
            for name, figures in attention_distances(case, given.tiny):
                tell(name, figures)
    if missing:
        raise missing


def _measure_model(folder: Path, tiny: bool, mesh: Mesh, tell: Tell) -> None:
    texts, saved = load(folder / FILE)
    for dtype in _DTYPES:
        config = arithmetic_config(folder, tiny, model__dtype=dtype)
        policy, initial = build_policy(config, cache_folder(), mesh)
        off = distances(compute(config, policy.model, initial.load_params(), texts, mesh), saved)
        alike = all(off[name] <= limit for name, limit in _allowed(dtype, saved).items())
        tell(f"model, {dtype}", {**off, "alike": alike})
    tell("model, bfloat16, on the CPU", {**_of_cpu(saved), "alike": True})


def _of_cpu(saved: dict[str, np.ndarray]) -> dict[str, float]:
    """How far bf16 was off on the CPU."""
    mark = "bfloat16/"
    return {k.removeprefix(mark): float(x) for k, x in saved.items() if k.startswith(mark)}


def _allowed(dtype: str, saved: dict[str, np.ndarray]) -> dict[str, float]:
    if dtype == "bfloat16":
        return {name: _BF16 * off for name, off in _of_cpu(saved).items() if name != "worst"}
    return {"logits": _F32, "logprobs": _F32, "gradient": _F32_GRADIENT}


# ---- attention --------------------------------------------------------------------------------


def implementations() -> dict[str, Callable]:
    """The package's implementations of attention in packed rows: name -> as `attend_packed`."""
    return {"blocks": attend_packed, "tpu": _by_kernels}


def _by_kernels(query, keys, values, layout: PackedLayout, window: int, scale: float):
    """By the kernels for TPUs. Raises ValueError where they do not take the platform or shapes."""
    require_attention("tpu", platform())
    group, head_dim = query.shape[2] // keys.shape[1], query.shape[3]
    if not (tile := attention_tpu.tile_of(layout, group, head_dim, query.dtype)):
        raise ValueError("the kernels for TPUs do not take these rows or heads")
    return attention_tpu.attend_tiles(
        query, keys, values, attention_tpu.visits(layout, window, tile), scale
    )


def attention_distances(case: Case, tiny: bool) -> Iterator[tuple[str, dict]]:
    """(name, how far values and gradients are off) of each implementation and dtype; first of the
    reference in bf16, which is the rounding that the others are allowed twice.

    Where one cannot compute the case here, it is told why.
    """
    layout = _layout(tiny)
    wanted = _values(attend_packed, case, layout, "float32")
    rounding = _off(_values(attend_packed, case, layout, "bfloat16"), wanted)
    limits = {"float32": dict.fromkeys(rounding, _F32)}
    limits["bfloat16"] = {name: _BF16 * off for name, off in rounding.items()}
    shape = f"{case.heads}/{case.kv_heads} heads of {case.head_dim}"
    shape += f", window {case.window}" if case.window else ""
    yield f"reference, bfloat16, {shape}", {**rounding, "alike": True}
    for name, attend in implementations().items():
        for dtype in _DTYPES if attend is not attend_packed else ():
            what = f"{name}, {dtype}, {shape}"
            try:
                off = _off(_values(attend, case, layout, dtype), wanted)
            except Exception as error:
                yield what, {"not_computed": said(error)}
            else:
                alike = all(off[part] <= limits[dtype][part] for part in off)
                yield what, {**off, "alike": alike}


def _layout(tiny: bool) -> PackedLayout:
    """Of one row: prompts of random lengths, each with completions."""
    rng, scale = np.random.default_rng(0), 1 if tiny else 16
    lengths = rng.integers(4 * scale, 12 * scale, 4), rng.integers(1, 8 * scale, 12)
    texts = [Ragged(np.ones(n.sum(), np.int32), n) for n in lengths]
    most = [(len(n), int(n.max())) for n in lengths]
    packing = pack(*texts, np.repeat(np.arange(4), 3), row_shapes(*most, 1, 256 * scale))
    return jax.tree.map(lambda x: jnp.asarray(x[0]), packing.rows.layout)


def _values(attend: Callable, case: Case, layout: PackedLayout, dtype: str) -> dict:
    """Output, and gradients by query, keys and values of its product with random numbers, f32."""
    rows, tokens = layout.positions.shape
    of_keys = rows, case.kv_heads, tokens, case.head_dim
    shapes = (rows, tokens, case.heads, case.head_dim), of_keys, of_keys
    keys = jax.random.split(jax.random.key(0), 4)
    inputs = [jax.random.normal(*each).astype(dtype) for each in zip(keys, shapes, strict=False)]
    real = (layout.sequence >= 0)[..., None, None]
    weight = jnp.where(real, jax.random.normal(keys[3], shapes[0]), 0)

    @partial(jax.value_and_grad, argnums=(0, 1, 2), has_aux=True)
    def product(query, keys, values):
        out = attend(query, keys, values, layout, case.window, case.head_dim**-0.5)
        out = jnp.where(real, out.astype(jnp.float32), 0)
        return (out * weight).sum(), out

    (_, out), gradients = jax.jit(product)(*inputs)
    parts = dict(zip(("output", "query", "keys", "values"), (out, *gradients), strict=True))
    return {name: np.asarray(x.astype(jnp.float32)) for name, x in parts.items()}


def _off(found: dict, wanted: dict) -> dict[str, float]:
    return {
        name: float(np.linalg.norm(found[name] - x) / np.linalg.norm(x))
        for name, x in wanted.items()
    }

"""The formulas tuned for a CPU against the plain ones, and which of them a program has."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from closeness import assert_same_gradients, normal
from flax import linen as nn
from hypothesis import given, settings
from hypothesis import strategies as st
from other_platforms import abstract_mesh

from permix_jax.models import on_cpu, operations, transformer
from permix_jax.models.config import ModelConfig
from permix_jax.models.operations import ACTIVATIONS, dense
from permix_jax.models.params import boxed_shapes
from permix_jax.models.transformer import Decoder

SEEDS = st.integers(0, 2**32 - 1)


PLAIN_GATE = operations.gated_activation.__wrapped__
NORMS = partial(on_cpu.rms_norm, eps=1e-3), partial(operations.rms_norm.__wrapped__, eps=1e-3)
GATES = {
    name: tuple(partial(f, activation=function) for f in (on_cpu.gated_activation, PLAIN_GATE))
    for name, function in ACTIVATIONS.items()
}


@settings(deadline=None)
@given(SEEDS, st.lists(st.floats(1e-3, 1e3), min_size=3, max_size=3))
def test_norm(seed, magnitudes):
    """Of tokens whose sizes differ by up to a million."""
    x = normal(2, 3, 16, seed=seed) * jnp.asarray(magnitudes, jnp.float32)[:, None]
    assert_same_gradients(*NORMS, x, normal(16, seed=seed + 2))


@settings(deadline=None)
@given(SEEDS, st.floats(0.1, 30), st.sampled_from(sorted(ACTIVATIONS)))
def test_gate(seed, magnitude, activation):
    for dtype, tolerance in (("float32", 1e-5), ("bfloat16", 2e-2)):
        up, gate = (normal(4, 8, dtype=dtype, seed=seed + i) for i in range(2))
        gate *= jnp.asarray(magnitude, dtype)
        assert_same_gradients(*GATES[activation], gate, up, tolerance=tolerance)


def test_cos_and_sin():
    angles = normal(3, 5, 8) * 1000
    pairs = zip(on_cpu.cos_sin(angles), transformer.cos_sin.__wrapped__(angles), strict=True)
    for got, wanted in pairs:
        np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_gate_keeps_its_two_arguments_alone(activation):
    """Temporaries of a chain of MLPs and its gradient, in arrays of tokens x hidden."""
    layers, tokens, width, hidden = 12, 64, 8, 512
    weights = jnp.ones((layers, 3, width, hidden))

    def arrays(gate_of):
        def loss(weights):
            x = jnp.ones((tokens, width))
            for w in weights:
                x = x + gate_of(dense(x, w[0], 1), dense(x, w[1], 1), function) @ w[2].T
            return x.sum()

        memory = jax.jit(jax.grad(loss)).lower(weights).compile().memory_analysis()
        return memory.temp_size_in_bytes / (4 * tokens * hidden * layers)

    function = ACTIVATIONS[activation]
    assert arrays(on_cpu.gated_activation) + 0.9 < arrays(PLAIN_GATE)


# ---- by platform ----------------------------------------------------------------------------

MODEL = Decoder(ModelConfig(17, 8, 2, 2, 2, 4, 16, dtype="bfloat16"))


def tuning_in(program: str) -> set[str]:
    """Which of the three a StableHLO text of `MODEL`'s gradient has."""
    zeros = set(re.findall(r"(%\S+) = stablehlo.constant dense<0.0+e\+00> : tensor<bf16>", program))
    spread = re.findall(r"(%\S+) = stablehlo.broadcast_in_dim (%\S+),", program)
    zeros |= {name for name, source in spread if source in zeros}
    factors = re.findall(r"stablehlo.multiply (%\S+), (%\S+) :", program)
    products = re.findall(r"stablehlo.dot_general .*", program)
    found = {
        "cos_sin": "stablehlo.while" in program,
        "gated_activation": any(zeros & set(pair) for pair in factors),
        "rms_norm": any("(tensor<1x3x8xf32>, tensor<8xf32>)" in line for line in products),
    }
    return {name for name, is_there in found.items() if is_there}


@pytest.mark.parametrize(
    ("platform", "expected"),
    [("cpu", {"cos_sin", "gated_activation", "rms_norm"}), ("tpu", set()), ("gpu", set())],
)
def test_a_program_for_an_accelerator_has_the_plain_formulas(platform, expected):
    """A gradient of a decoder, exported on a CPU for a platform that need not be here."""

    def loss(params, tokens):
        hidden, _ = MODEL.apply({"params": params}, tokens, tokens, tokens >= 0)
        return hidden.astype(jnp.float32).sum()

    params = nn.unbox(boxed_shapes(MODEL))
    tokens = jax.ShapeDtypeStruct((1, 3), jnp.int32)
    with jax.sharding.use_abstract_mesh(abstract_mesh(platform)):
        to = "cuda" if platform == "gpu" else platform
        exported = jax.export.export(jax.jit(jax.grad(loss)), platforms=[to])(params, tokens)
    assert tuning_in(exported.mlir_module()) == expected

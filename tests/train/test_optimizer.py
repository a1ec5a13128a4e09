import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from grpo_batches import small_decoder
from jax.sharding import PartitionSpec

from permix_jax.core.config_fields import FIELDS
from permix_jax.core.sharding import make_mesh
from permix_jax.models.params import create_params
from permix_jax.train.optimizer import _as_matrices, make_optimizer, make_schedule
from permix_jax.train.state import abstract_state, create_state, make_programs, make_step

OPTIMIZERS = FIELDS["train.optimizer"].rule.choices
MODEL = small_decoder()


def optimizer(name="adamw", rate=0.1, weight_decay=0.0, **options):
    return make_optimizer(rate, 0, 10, "none", weight_decay, 1e9, optimizer=name, **options)[0]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_moments_lie_where_their_parameters_lie_and_a_step_keeps_them_there(name):
    mesh = make_mesh(1, 4, 2)
    with jax.set_mesh(mesh):
        chosen = optimizer(name, rate=1e-3)
        abstract = abstract_state(MODEL, chosen, mesh)
        params = create_params(MODEL, jax.random.key(0), mesh)
        state = create_state(params, chosen, abstract)
        found = 0
        for path, x in jax.tree_util.tree_leaves_with_path(state.opt_state):
            if "down" in str(path) and x.shape == params["layers_0"]["mlp"]["down"].shape:
                found += x.sharding.spec == PartitionSpec("tensor", "fsdp")
            if "up" in str(path) and x.shape == params["layers_0"]["mlp"]["up"].shape:
                found += x.sharding.spec == PartitionSpec("fsdp", "tensor")
        assert found == {"adamw": 4, "adafactor": 2, "muon": 2, "lion": 2}[name]

        def gradients(params):
            return jax.tree.map(lambda x: x + 1, params), {"loss": jnp.float32(0)}

        step = make_step(gradients, chosen, abstract)
        before = jax.tree.map(np.asarray, state.params)
        state, _ = step(state)
        for old, new, like in zip(
            *map(jax.tree.leaves, (before, state.params, abstract.params)), strict=True
        ):
            assert new.sharding == like.sharding
            assert np.isfinite(new).all() and (np.asarray(new) != old).any()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_weight_decay_is_that_of_adamw_in_every_optimiser(name):
    """rate * decay * weight = 0.1 * 0.5 * 2, and half of it in a warm-up of one step."""
    params = {"out": jnp.full((4, 4), 2.0), "embedding": jnp.full((8, 4), 2.0)}
    params |= {"norm": {"scale": jnp.ones(4)}, "query_bias": jnp.ones(4)}
    zero = jax.tree.map(jnp.zeros_like, params)
    chosen = optimizer(name, weight_decay=0.5)
    updates, _ = chosen.update(zero, chosen.init(params), params)
    for part in ("out", "embedding"):
        np.testing.assert_allclose(updates[part], np.full(params[part].shape, -0.1), rtol=1e-6)
    assert not np.asarray(updates["norm"]["scale"]).any()
    assert not np.asarray(updates["query_bias"]).any()
    warm, _ = make_optimizer(0.1, 1, 10, "none", 0.5, 1e9, optimizer=name)
    updates, _ = warm.update(zero, warm.init(params), params)
    np.testing.assert_allclose(updates["out"], np.full((4, 4), -0.05), rtol=1e-6)


def test_muon_takes_the_outputs_of_all_heads_as_the_inputs_of_a_matrix():
    """Adapters too: out [heads, head_dim, width] and out_lora_a [heads, head_dim, rank]."""
    shapes = {"out": (4, 8, 32), "out_lora_a": (4, 8, 2), "out_lora_b": (2, 32)}
    shapes |= {"query": (32, 4, 8), "query_lora_a": (32, 2), "query_lora_b": (2, 4, 8)}
    axes = _as_matrices({name: jnp.zeros(shape) for name, shape in shapes.items()})
    assert {name: of.reduction_axis for name, of in axes.items()} == {
        "out": (0, 1), "out_lora_a": (0, 1), "out_lora_b": (0,),
        "query": (0,), "query_lora_a": (0,), "query_lora_b": (0,),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["adamw", "lion", "muon"])
@pytest.mark.parametrize(("dtype", "expected"), [("", "float32"), ("bfloat16", "bfloat16")])
def test_first_moments_have_the_dtype_that_was_asked_for(name, dtype, expected):
    state = optimizer(name, moments_dtype=dtype).init({"out": jnp.ones((4, 4))})
    (mu,) = [x for _, mu in optax.tree.get_all_with_path(state, "mu") for x in jax.tree.leaves(mu)]
    assert mu.dtype == expected


def test_the_first_steps_of_adamw_and_lion_by_hand():
    params, gradient = {"w": jnp.array([1.0, 2.0])}, {"w": jnp.array([0.3, -0.1])}
    for name in ("adamw", "lion"):  # both move by the rate, against the sign of the gradient
        chosen = optimizer(name)
        updates, _ = chosen.update(gradient, chosen.init(params), params)
        np.testing.assert_allclose(updates["w"], [-0.1, 0.1], rtol=1e-5)


def test_muon_moves_along_an_orthogonal_matrix():
    """The singular values of an update are about the same, though those of its gradient are not."""
    rng = np.random.default_rng(0)
    gradient = {"gate": jnp.asarray(rng.normal(size=(6, 4)) * [3, 1, 2, 1], jnp.float32)}
    chosen = optimizer("muon")
    updates, _ = chosen.update(gradient, chosen.init(gradient), gradient)
    values = np.linalg.svd(updates["gate"], compute_uv=False)
    assert values.max() < 3 * values.min()


@pytest.mark.parametrize(
    ("decay", "expected"),
    # Eight steps after the warm-up of four, down to a quarter.
    [("linear", [1, 0.625, 0.25]), ("cosine", [1, 0.625, 0.25]), ("exponential", [1, 0.5, 0.25])],
)
def test_a_decay_ends_at_its_share_of_the_peak(decay, expected):
    rate = make_schedule(1.0, 4, 12, decay, 0.25)
    np.testing.assert_allclose([rate(step) for step in (4, 8, 12)], expected, rtol=1e-6)


def test_the_average_of_the_weights_by_hand_and_a_step_without_gradient_leaves_it(mesh):
    def gradients(params, scale):
        return jax.tree.map(lambda x: jnp.full_like(x, scale), params), {"loss": jnp.float32(0)}

    settings = {"learning_rate": 0.1, "warmup_steps": 0, "decay": "none", "weight_decay": 0.0}
    settings |= {"max_grad_norm": 1e9, "ema": 0.75}
    programs = make_programs(settings, 10, MODEL, mesh, gradients)
    first = create_params(MODEL, jax.random.key(0), mesh)
    state = create_state(first, programs.optimizer, programs.abstract)

    def norm(tree):
        return np.asarray(tree["final_norm"]["scale"])

    start = norm(first)
    state, _ = programs.update(state, jnp.float32(1))
    np.testing.assert_allclose(norm(state.params), start - 0.1, rtol=1e-5)
    np.testing.assert_allclose(norm(state.policy), start - 0.025, rtol=1e-5)
    state, _ = programs.update(state, jnp.float32(0))
    np.testing.assert_allclose(norm(state.policy), start - 0.025, rtol=1e-5)

"""The policies of a run, each with the parameters that it means, read when they are asked for."""

from contextlib import closing
from dataclasses import replace
from functools import partial

import jax
import numpy as np
import pytest
from runs import load_config, run_of

from permix_jax.models.config import Lora
from permix_jax.models.params import create_params, split_trained
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.train.checkpoints import Checkpoints
from permix_jax.train.state import make_programs


@pytest.fixture
def lora(tiny_model) -> Policy:
    adapters = Lora(2, 4.0, ("q_proj", "v_proj"))
    return Policy(Decoder(replace(tiny_model.config, lora=adapters)), None, (0,))


@pytest.fixture
def trained(lora, mesh):
    """All parameters of a policy: its adapters, and the base that they belong to."""
    return split_trained(lora.model, create_params(lora.model, jax.random.key(1), mesh))


def save(folder, step, params):
    with closing(Checkpoints(folder / "checkpoints")) as checkpoints:
        checkpoints.save(step, params)


def start(lora, params, mesh, folder, **fields):
    run = run_of(load_config("permix.py", "tiny", **fields), None, lora, None, mesh, folder)
    plain = lora._replace(model=Decoder(replace(lora.model.config, lora=None)))
    return replace(run, initial=replace(run.initial, policy=plain, load_params=lambda: params))


assert_equal = partial(jax.tree.map, np.testing.assert_array_equal)


def test_without_sft_the_base_is_what_everything_starts_from(lora, tiny_params, mesh, tmp_path):
    run = start(lora, tiny_params, mesh, tmp_path, sft__steps=0)
    base = run.base.load()
    assert base.policy.model.config.lora is None and base.params is tiny_params
    assert base.mesh is run.mesh is mesh
    assert run.at(0).name == run.base.name == "the base policy"
    assert run.at(0).load_params() is tiny_params


def test_with_sft_it_is_read_from_its_folder(lora, tiny_params, trained, mesh, tmp_path):
    run = start(lora, None, mesh, tmp_path, sft__steps=3)
    base, newest = run.base, run.at(2)  # nothing is read yet: nothing is there
    save(run.base_folder, 3, tiny_params)
    save(tmp_path, 2, trained[0])
    assert_equal(base.load_params(), tiny_params)
    assert base.policy.model.config.lora is None
    assert newest.name == "step 2" and newest.policy is lora
    adapters, below = split_trained(lora.model, newest.load_params())
    assert_equal(adapters, trained[0])
    assert_equal(below, tiny_params)


def test_training_starts_as_the_base_with_fresh_adapters(lora, tiny_params, mesh, tmp_path):
    run = start(lora, tiny_params, mesh, tmp_path, sft__steps=0)
    programs = make_programs(run.config.train, 1, lora.model, mesh, lambda *_: None)
    asked = []
    seen = {"seen": jax.numpy.ones(3)}
    abstract, create = run.start(programs, lambda: asked.append(1) or tiny_params, seen)
    assert not asked and abstract.accuracies["seen"].shape == (3,)
    state = create()
    assert asked == [1] and int(state.step) == 0
    shapes = jax.tree.map(lambda x: (x.shape, x.dtype), (state, abstract))
    assert shapes[0] == shapes[1]
    flat = jax.tree_util.tree_leaves_with_path(state.params)
    assert all("lora" in jax.tree_util.keystr(path) for path, _ in flat)

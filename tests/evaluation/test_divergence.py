import json
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from runs import embedded_policy

from permix_jax.evaluation.divergence import KlSettings, measure_kl
from permix_jax.models.params import create_params
from permix_jax.models.policy import StoredPolicy
from permix_jax.personas.prompts import render
from permix_jax.rollout.sampling import Sampling
from permix_jax.tasks.embedded_world import latent_style_task

TEMPERATURE = 0.7


@pytest.fixture(scope="module")
def policy():
    return embedded_policy()


def measured(policy, params, base, mesh, folder, **changes):
    """kl.json of one test problem under one persona or none, and one conversation prompt."""
    task = latent_style_task(16, 0.89, 0.6, 0.2, seed=0)
    heldout = [p for p in task.personas if p.split == "heldout"][:1]
    task = replace(task, test=task.test[:1], role_play=task.role_play[:1], personas=heldout)
    settings = KlSettings(
        seed=0,
        responses=600,
        role_play=True,
        personas=0,
        batch_size=128,  # does not divide the number of responses
        max_prompt_tokens=16,
        micro_batch_tokens=256,
        logits_chunk=512,
        sampling=Sampling(1, TEMPERATURE),
    )._replace(**changes)
    path, trained = folder / "kl.json", StoredPolicy("trained", policy, mesh, lambda: params)
    untrained = replace(trained, load_params=lambda: base)
    measure_kl(task, trained, untrained, settings, path, check_stop=lambda: None)
    return task, json.loads(path.read_text())


def test_it_is_the_kl_of_the_first_token_where_there_is_no_other(policy, mesh, tmp_path):
    params, base = (create_params(policy.model, jax.random.key(seed), mesh) for seed in (0, 1))
    task, found = measured(policy, params, base, mesh, tmp_path)

    def logprobs(params, persona, problem):
        ids = jnp.array([render(policy.tokenizer, persona, problem.prompt)])
        positions = jnp.arange(ids.shape[1])[None]
        hidden, _ = policy.model.apply({"params": params}, ids, positions, ids >= 0)
        logits = policy.model.apply({"params": params}, hidden[:, -1], method="unembed")
        return np.asarray(jax.nn.log_softmax(logits[0] / TEMPERATURE))

    persona, conversation = task.personas[0], task.role_play[0]
    p, q = (logprobs(x, persona, conversation) for x in (params, base))
    exact = float((np.exp(p) * (p - q)).sum())
    entry = found["by_task"]["role_play"]
    half = (entry["kl_ci95"][1] - entry["kl_ci95"][0]) / 2
    assert entry["n"] == 300 and 0 < half < exact
    assert abs(entry["kl"] - exact) < 2 * half  # four standard errors
    assert entry["kl_per_token"] == pytest.approx(entry["kl"])
    kinds = [entry["kl"] for entry in found["by_task"].values()]
    assert found["kl"] == pytest.approx(np.mean(kinds))


@pytest.mark.parametrize(
    ("fields", "kinds", "number"),
    [
        ({"sampling": Sampling(6, TEMPERATURE), "responses": 64}, ["problems", "role_play"], 32),
        ({"responses": 5, "batch_size": 4, "role_play": False}, ["problems"], 5),
    ],
)
def test_a_policy_is_not_away_from_itself(policy, mesh, tmp_path, fields, kinds, number):
    params = create_params(policy.model, jax.random.key(0), mesh)
    _, found = measured(policy, params, params, mesh, tmp_path, **fields)
    assert found["kl"] == pytest.approx(0, abs=1e-8)
    numbers = {kind: entry["n"] for kind, entry in found["by_task"].items()}
    assert numbers == dict.fromkeys(kinds, number)

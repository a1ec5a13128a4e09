"""What a run's other phases compute: which there are, on how many tokens, beside what."""

import jax
import pytest
from runs import load_config
from test_costs import HEAD, LINEAR, attention

from permix_jax.core.sharding import make_mesh
from permix_jax.planning.compiled import abstract_arguments, bytes_per_chip
from permix_jax.planning.other_programs import phase_programs
from permix_jax.train.programs import grpo_programs

P = T = 16  # of the tiny config


@pytest.fixture
def phases(tiny_model):
    def make(**fields):
        mesh = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}
        config = load_config("permix.py", "tiny", **mesh, **fields)
        mesh = make_mesh(2, 2, 2)
        with jax.set_mesh(mesh):
            programs = grpo_programs(config, tiny_model, mesh)
            arguments = abstract_arguments(config, tiny_model, programs, mesh)
            found = phase_programs(config, tiny_model, mesh, arguments)
            return {name: (x, x.program.flops()) for name, x in found.items()}

    return make


def test_a_run_has_the_phases_that_its_config_asks_for(phases):
    assert list(phases()) == ["SFT of 32", "evaluation of 64", "KL of 64"]
    fewer = phases(sft__steps=0, eval__kl_responses=0, eval__batch_size=8)
    assert list(fewer) == ["evaluation of 8"]
    more = phases(eval__judge_free_candidates=2, eval__kl_responses=8)
    assert list(more)[2:] == ["KL of 8", "likelihoods of 64"]


def test_an_evaluation_answers_a_batch_beside_the_training_if_it_interrupts_it(phases):
    phase, flops = phases(eval__samples=2, eval__max_new_tokens=12, eval__every=3)[
        "evaluation of 64"
    ]
    U, N, length = 32, 64, 12
    step = 2 * (LINEAR + HEAD) * N + attention(N, 1, P + length)
    assert flops == 2 * LINEAR * U * P + attention(U, P, P) + length * step
    assert phase.beside
    assert not phases(eval__every=0)["evaluation of 64"][0].beside


def test_the_base_scores_each_answer_with_its_prompt(phases):
    """All projections of the tokens that are there; the head is for targets, padded to the row."""
    phase, flops = phases(eval__kl_responses=8)["KL of 8"]
    tokens = 8 * (P + T)
    assert flops >= 2 * (LINEAR + HEAD) * tokens
    assert flops <= 2 * (2 * LINEAR + HEAD) * tokens + attention(1, tokens, tokens)


def test_sft_trains_all_weights(phases):
    phase, flops = phases()["SFT of 32"]
    weights = bytes_per_chip(phase.given.params)
    assert not phase.beside
    assert 3 * weights <= bytes_per_chip(phase.given) < 3.1 * weights
    fewer = phases(sft__batch_size=16)["SFT of 16"][1]
    assert fewer < flops

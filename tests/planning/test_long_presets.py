"""The presets of models that think: what their programs never hold."""

from dataclasses import replace

import jax
import pytest
from jaxprs import shapes_in
from runs import load_config

from permix_jax.core.sharding import make_mesh
from permix_jax.formats.huggingface import config_from_hf
from permix_jax.formats.published import CONFIGS
from permix_jax.models.transformer import Decoder
from permix_jax.planning.compiled import step_programs
from permix_jax.planning.other_programs import phase_programs


@pytest.fixture(scope="module", params=["qwen3_0_6b_long", "qwen3_8b_long"])
def programs(request):
    """(tokens of a prompt and its completion, the jaxprs of a run's programs), with one layer."""
    config = load_config("permix.py", request.param)
    asked, config.mesh.fsdp, config.mesh.tensor = config.rollout, 1, 1
    shape = config_from_hf(CONFIGS[config.model.source])
    fields = {"param_dtype": "float32", "dtype": "bfloat16", "remat": "full"}
    model, mesh = Decoder(replace(shape, num_layers=1, **fields)), make_mesh(1, 1, 1)
    with jax.set_mesh(mesh):
        arguments, steps = step_programs(config, model, mesh)
        phases = phase_programs(config, model, mesh, arguments)
        found = steps | {name: phase.program for name, phase in phases.items()}
        jaxprs = {name: program.trace().jaxpr for name, program in found.items()}
    return asked.max_prompt_tokens + asked.max_new_tokens, jaxprs


def test_no_program_holds_an_array_of_all_pairs_of_tokens(programs):
    length, jaxprs = programs
    assert length == 1024 + 16384
    assert [*jaxprs] == ["rollout", "score", "update", "evaluation of 32", "KL of 32"]
    for name, jaxpr in jaxprs.items():
        shapes = shapes_in(jaxpr.jaxpr)
        assert any(length - 1024 in shape or length in shape for shape in shapes), name
        pairs = [shape for shape in shapes if sum(size >= length - 1024 for size in shape) > 1]
        assert pairs == [], name

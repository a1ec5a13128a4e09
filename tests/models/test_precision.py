"""With f32 factors, every product of a step is one of f32, on accelerators too."""

import re

import jax
import pytest
from other_platforms import abstract_mesh
from runs import load_config

from permix_jax.app.policies import build_policy
from permix_jax.core.sharding import make_mesh
from permix_jax.planning.compiled import step_programs

PRODUCT = re.compile(r"stablehlo\.dot_general .*?-> tensor<.*?>")
FIELDS = {"rehearsal__weight": 0.1, "rollout__halvings": 1}


def products(dtype: str, platform: str, tmp_path, **fields) -> dict[str, list[str]]:
    """Program of a step -> its products, as lowered for a platform that need not be here."""
    config = load_config("permix.py", "tiny", model__dtype=dtype, **FIELDS, **fields)
    model = build_policy(config, tmp_path, make_mesh(1, 1, 1))[0].model
    mesh = abstract_mesh("gpu" if platform == "cuda" else platform)
    with jax.sharding.use_abstract_mesh(mesh):
        programs = step_programs(config, model, mesh)[1]
        lowered = {
            name: program.trace().lower(lowering_platforms=(platform,))
            for name, program in programs.items()
        }
    return {name: PRODUCT.findall(text.as_text()) for name, text in lowered.items()}


@pytest.mark.parametrize(("platform", "rank"), [("tpu", 0), ("cuda", 2)])
def test_products_of_f32_are_exact_on_accelerators(tmp_path, platform, rank):
    found = products("float32", platform, tmp_path, lora__rank=rank, lora__base_dtype="float32")
    assert set(found) == {"rollout", "score", "update"}
    for lines in found.values():
        assert lines
        assert [line for line in lines if "precision = [HIGHEST, HIGHEST]" not in line] == []


def test_all_products_of_a_bf16_model_are_of_bf16(tmp_path):
    for lines in products("bfloat16", "tpu", tmp_path).values():
        assert lines
        assert [line for line in lines if "HIGHEST" in line or "bf16" not in line] == []

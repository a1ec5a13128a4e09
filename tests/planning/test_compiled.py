"""Compiled programs are kept on disk; what the compiler refuses is said in one line."""

import jax
import jax.numpy as jnp
import pytest
from runs import load_config

from permix_jax.core.sharding import make_mesh
from permix_jax.planning import compiled
from permix_jax.planning.compiled import Compiled, Program, compile_programs, step_programs
from permix_jax.planning.prediction import CYCLES, Cost

MATMUL = 2 * 4 * 4 * 4
FOUND = Compiled(0, 90, 60, 128.0, 70.5, (Cost("mlp", CYCLES, 0.5, 0.0), Cost("", "x", 1.0, 2.0)))


@pytest.fixture
def program():
    x = jnp.ones((4, 4))
    return Program(lambda: jax.jit(lambda x: x @ x).trace(x), trips=3)


@pytest.fixture
def compilations(monkeypatch):
    """The topologies that a program is compiled for, in turn; the compiler itself is not asked."""
    calls = []

    def compile(job):
        calls.append(job.topology)
        return FOUND._replace(flops=job.flops)

    monkeypatch.setattr(compiled, "_compiled", compile)
    return calls


def compile_program(name, program, topology, cache):
    return compile_programs({name: program}, topology, cache)[name]


def test_a_program_is_compiled_once_for_each_topology(program, compilations, tmp_path):
    first = compile_program("update", program, "v5e:1x1", tmp_path)
    assert first == FOUND._replace(flops=MATMUL)
    assert compile_program("update", program, "v5e:1x1", tmp_path) == first
    assert compilations == ["v5e:1x1"]
    compile_program("update", program, "v5p:1x1x1", tmp_path)
    compile_program("update", program._replace(trips=4), "v5e:1x1", tmp_path)
    y = jnp.ones((4, 4), jnp.bfloat16)
    other = Program(lambda: jax.jit(lambda x: x @ x).trace(y), trips=3)
    compile_program("update", other, "v5e:1x1", tmp_path)
    assert compilations == ["v5e:1x1", "v5p:1x1x1", "v5e:1x1", "v5e:1x1"]


def test_programs_come_back_in_their_order_each_with_its_own(program, compilations, tmp_path):
    y = jnp.ones((2, 3, 8, 8))
    large = Program(lambda: jax.jit(lambda y: y @ y @ (y + 1)).trace(y), trips=1)
    found = compile_programs({"score": program, "update": large}, "v5e:1x1", tmp_path)
    assert {name: x.flops for name, x in found.items()} == {
        "score": MATMUL, "update": 2 * 6 * 2 * 8**3
    }  # fmt: skip
    assert list(found) == ["score", "update"] and len(compilations) == 2


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"costs": [[1]]}', '{"costs": []}'])
def test_a_damaged_file_is_made_again(program, compilations, tmp_path, damage):
    first = compile_program("update", program, "v5e:1x1", tmp_path)
    (kept,) = (tmp_path / "plans").iterdir()
    kept.write_text(damage)
    assert compile_program("update", program, "v5e:1x1", tmp_path) == first
    assert compile_program("update", program, "v5e:1x1", tmp_path) == first
    assert len(compilations) == 2


def test_a_program_that_needs_too_much_is_kept_too(program, tmp_path, monkeypatch):
    def refuse(lowered):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: (2.00K) exceeds available HBM (1K)")

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    found = compile_program("update", program, "v5e:1x1", tmp_path)
    assert found == Compiled(MATMUL, 2048)
    monkeypatch.undo()
    assert compile_program("update", program, "v5e:1x1", tmp_path) == found


def test_a_failure_of_the_compiler_is_one_line(program, tmp_path, monkeypatch):
    def fail(lowered):
        raise jax.errors.JaxRuntimeError("INTERNAL: Mosaic failed\n at line 3\n")

    monkeypatch.setattr(jax.stages.Lowered, "compile", fail)
    with pytest.raises(ValueError) as error:
        compile_program("update", program, "v5e:1x1", tmp_path)
    assert str(error.value) == (
        "update cannot be compiled for --topology=v5e:1x1: INTERNAL: Mosaic failed; "
        "try another mesh or another version of libtpu"
    )


SCOPES = {
    "rollout": ["gather_weights", "prefill", "decode", "embedding", "attend", "head", "draw"],
    "score": ["embedding", "attend", "head"],
    "update": ["embedding", "attend", "head", "add_gradients", "optimizer"],
}


def test_programs_name_the_places_of_their_source(tiny_model):
    config, mesh = (
        load_config("permix.py", "tiny", train__micro_batch_tokens=64),
        make_mesh(1, 1, 1),
    )
    with jax.set_mesh(mesh):
        programs = step_programs(config, tiny_model, mesh)[1]
        texts = {
            name: program.trace().lower().as_text(debug_info=True)
            for name, program in programs.items()
        }
    for name, scopes in SCOPES.items():
        assert [x for x in scopes if f"{x}/" not in texts[name]] == []
    assert "transpose(jvp(Decoder))/layers_0/attention/attend/" in texts["update"]

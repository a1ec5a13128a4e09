"""Plans: their arithmetic and advice; and a tiny run compiled for a TPU, where libtpu is there."""

import importlib.util
import os
import re
import subprocess
import sys
from dataclasses import replace

import jax
import pytest
from jax.sharding import SingleDeviceSharding
from runs import ROOT, load_config

from permix_jax.core.sharding import make_mesh
from permix_jax.core.tpus import GIB, Chip
from permix_jax.models.transformer import Decoder
from permix_jax.planning import chips
from permix_jax.planning.compiled import (
    Compiled,
    abstract_arguments,
    distinct_prompts,
    needed_bytes,
)
from permix_jax.planning.other_programs import Phase
from permix_jax.planning.plan import (
    Plan,
    Use,
    advice,
    least_seconds,
    make_plan,
    phase_use,
    plan_report,
    resident_bytes,
    use_of,
)
from permix_jax.planning.prediction import CYCLES, Cost
from permix_jax.train.programs import grpo_programs

CHIP = Chip(16.0 * GIB, flops=100.0, hbm_bandwidth=10.0, ici_bandwidth=1.0, links=2, clock=1.0)


def use(parameters=1.0, cache=1.0, temporaries=1.0, **fields) -> Use:
    """Of so many GiB, and work of 8 s in matmuls, 9 s of memory, 2 s of links."""
    work = {"compiled": True, "flops": 800.0, "hbm_bytes": 90.0, "ici_bytes": 2.0, **fields}
    resident = {"parameters": int(parameters * GIB), "optimiser": 2 * GIB}
    return Use(resident, cache * GIB, temporaries * GIB, **work)


@pytest.fixture
def config():
    return load_config("permix.py", "tiny")


def test_a_program_is_as_slow_as_its_slowest_part_and_a_step_as_all_its_programs():
    plan = Plan("v5e:1x1", CHIP, 1, {"rollout": use(), "update": use(hbm_bytes=None)})
    assert use().seconds(CHIP) == {"matmuls": 8.0, "memory": 9.0, "links": 2.0}
    assert plan.seconds() == 9.0 + 8.0


def test_a_step_is_predicted_as_the_sum_of_its_programs_if_all_are():
    costs = Cost("layers/mlp", CYCLES, 10.0, 0.0), Cost("head", "all-reduce", 6.0, 3.0)
    both = {"rollout": use(costs=costs), "update": use(costs=costs[:1])}
    plan = Plan("v5e:1x1", CHIP, 1, both)
    assert (use(costs=costs).predicted(), plan.predicted()) == (16.0, 26.0)
    assert use().predicted() is None
    assert plan._replace(programs=both | {"score": use()}).predicted() is None


def test_a_program_fits_up_to_the_chips_memory_and_if_it_compiled():
    assert use(temporaries=12.0).fits(CHIP)
    assert not use(temporaries=12.5).fits(CHIP)
    assert not use(compiled=False).fits(CHIP)


@pytest.fixture
def arguments(tiny_model):
    """Of a run on 2 x 2 x 2 devices, with its config."""

    def make(model=tiny_model, **fields):
        mesh = {"mesh__data": 2, "mesh__fsdp": 2, "mesh__tensor": 2}
        config = load_config("permix.py", "tiny", **mesh, **fields)
        mesh = make_mesh(2, 2, 2)
        programs = grpo_programs(config, model, mesh)
        return config, abstract_arguments(config, model, programs, mesh)

    return make


# Matrices of the tiny decoder, all cut in four: embedding, two layers. Norms, whole: five of 16.
PARAMETERS = ((48 * 16 + 2 * (2 * 16 * 32 + 2 * 16 * 16 + 3 * 16 * 24)) / 4 + 5 * 16) * 4


def test_residents_are_cut_over_the_mesh_and_a_kl_needs_a_reference(arguments):
    config, abstract = arguments()
    sizes = resident_bytes(abstract, config)
    assert sizes["parameters"] == sizes["reference"] == PARAMETERS
    # Two moments, and the counts of Adam and of the schedule.
    assert sizes["optimiser"] == 2 * PARAMETERS + 8
    assert sizes["frozen base"] == 0
    config, abstract = arguments(grpo__kl_weight=0.0)
    assert resident_bytes(abstract, config)["reference"] == 0


def test_biases_are_counted_with_what_they_belong_to(arguments, tiny_model):
    """Of 4 query, 2 key and 2 value heads of 8, cut over mesh.tensor alone, in two layers."""
    biased = Decoder(replace(tiny_model.config, qkv_bias=True))
    config, abstract = arguments(model=biased)
    more = 2 * (4 + 2 + 2) * 8 // 2 * 4
    sizes = resident_bytes(abstract, config)
    assert sizes["parameters"] == sizes["reference"] == PARAMETERS + more
    assert sizes["optimiser"] == 2 * (PARAMETERS + more) + 8


def test_the_peak_is_what_lies_there_and_what_the_program_adds(arguments, tiny_model):
    config, abstract = arguments()
    base = sum(resident_bytes(abstract, config).values())
    fitting = Compiled(8000, 0, 50_000, once_flops=500.0, once_bytes=60.0)
    found = use_of("update", fitting, abstract, tiny_model.config, config)
    assert found.peak() == base + 50_000
    # 8 chips share the matmuls; half of a chip's were counted, so half of its bytes.
    assert (found.flops, found.hbm_bytes) == (1000, 120)

    too_large = Compiled(8000, 90_000, None, None, None)
    found = use_of("score", too_large, abstract, tiny_model.config, config)
    assert not found.fits(CHIP)
    assert found.peak() == base + 90_000 - PARAMETERS
    assert found.hbm_bytes is None


@pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])
def test_gradients_go_over_the_links_in_f32(arguments, tiny_model, tied):
    shape = replace(tiny_model.config, tie_embeddings=tied)
    config, abstract = arguments(model=Decoder(shape), train__micro_batch_tokens=64)
    traced = Compiled(8000, 0, 0, None, None)

    def links(dtype):
        model = replace(shape, dtype=dtype)
        return use_of("update", traced, abstract, model, config).ici_bytes

    # In bf16 all is half as many bytes, but the gradients, half of those of a tensor half: of the
    # weights in each part, and of the head once. A tied head is a weight that is looked up, too.
    weights = sum(x.size for x in jax.tree.leaves(abstract.params))
    parts, head = abstract.rows.tokens.shape[0], 48 * 16
    gradients = (parts * (weights - (not tied) * head) + head) / 2 / 2 * 4
    assert parts > 1
    assert links("bfloat16") == pytest.approx((links("float32") + gradients) / 2)


def test_a_rollouts_parts_take_their_time_one_after_the_other(arguments, tiny_model):
    costs = (Cost("decode", CYCLES, 3.0, 5.0),)
    config, abstract = arguments(rollout__micro_batches=2)
    for name, times in [("rollout", 2), ("score", 1), ("update", 1)]:
        program = Compiled(8000, 0, 0, 500.0, 60.0, costs)
        found = use_of(name, program, abstract, tiny_model.config, config)
        assert found.costs == (Cost("decode", CYCLES, 3.0 * times, 5.0 * times),)


def test_links_carry_the_tokens_of_the_rollout_and_of_the_packed_rows(arguments, tiny_model):
    config, abstract = arguments()
    parts, tokens = abstract.rows.tokens.shape[0], abstract.rows.tokens.size
    weights = sum(x.size for x in jax.tree.leaves(abstract.params))
    # Of the weights of its tensor half, f32, half lie on the fsdp neighbour. A quarter of the rows
    # is on a chip; two sums a layer of 16 numbers, two layers; 2 (n - 1) / n = 1.
    gathered, summed = weights / 2 * 4 / 2, 2 * 2 * 16 * 4 / 4
    traced = Compiled(8000, 0, 0, None, None)
    # 8 prompts and 64 completions of 16 tokens.
    for name, passes, length in (("rollout", 1, (8 + 64) * 16), ("score", parts, tokens)):
        links = use_of(name, traced, abstract, tiny_model.config, config).ici_bytes
        assert links == passes * gathered + length * summed


def test_prompts_are_one_a_problem_or_one_a_rollout(config):
    assert distinct_prompts(config) == 8
    config.personas.level = "rollout"
    assert distinct_prompts(config) == 64
    config.personas.share = 0.0
    assert distinct_prompts(config) == 8


def test_xlas_refusal_tells_how_much_it_needs():
    message = "RESOURCE_EXHAUSTED: ... (20.50G) exceeds available HBM (15.75G). HLO module: x"
    assert needed_bytes(message) == 20.5 * GIB
    assert needed_bytes("INVALID_ARGUMENT: something else") is None


def test_twice_the_data_on_twice_the_chips_takes_as_long(tmp_path, monkeypatch):
    """Without weights to gather, each chip has the same work; half the chips have twice of it."""

    def planned(chip_count: int, problems: int):
        monkeypatch.setattr(chips, "topology_devices", lambda _: jax.devices()[:chip_count])
        fields = {"mesh__data": chip_count, "train__problems_per_step": problems}
        return least_seconds(load_config("permix.py", "tiny", **fields), "v5e:2x2", tmp_path)

    four = planned(4, 16)
    assert list(four) == ["rollout", "score", "update"]
    assert four == planned(2, 8)
    two = planned(2, 16)
    assert all(two[name] > four[name] for name in four)


FULL = {"model__remat": "full"}
SMALLEST = FULL | {"train__micro_batch_tokens": 32}


@pytest.mark.parametrize(
    ("sizes", "fields", "named"),
    [
        ({"parameters": 20.0}, {}, ["mesh.fsdp", "mesh.tensor", "lora.rank"]),
        ({"cache": 20.0}, {}, ["rollout.group_size", "rollout.max_new_tokens"]),
        ({"temporaries": 20.0}, {"model__remat": "dots"}, ["set model.remat to full"]),
        ({"temporaries": 20.0}, FULL, ["train.micro_batch_tokens (to at least 32)"]),
        ({"temporaries": 20.0}, SMALLEST, ["mesh.tensor", "model.head_chunk"]),
    ],
)
def test_what_does_not_fit_is_told_which_knob_to_turn(sizes, fields, named):
    config, too_large = load_config("permix.py", "tiny", **fields), use(**sizes)
    assert all(name in advice(too_large, config) for name in named)
    report = plan_report(Plan("v5e:1x1", CHIP, 1, {"update": too_large}), config)
    assert "update does not fit, by" in report and advice(too_large, config) in report


def test_a_batch_of_a_phase_is_planned_alone_or_beside_the_training():
    costs = (Cost("layers/mlp", CYCLES, 4.0, 0.0),)
    program = Compiled(800, 90, 60, 5.0, 6.0, costs)
    weights = jax.ShapeDtypeStruct((4,), "float32", sharding=SingleDeviceSharding(jax.devices()[0]))
    alone, beside = Phase(None, {"w": weights}), Phase(None, {"w": weights}, beside=True)
    training = {"parameters": 100, "optimiser": 200}
    found = phase_use(alone, program, training, chips=4)
    assert (found.peak(), found.flops, found.predicted()) == (16 + 60, 200, 4.0)
    assert phase_use(beside, program, training, chips=4).peak() == 300 + 60
    too_large = phase_use(alone, Compiled(800, 90), training, chips=4)
    assert too_large.peak() == 90 and not too_large.fits(CHIP)


def test_a_phase_that_does_not_fit_is_told_which_knob_to_turn(config):
    phases = {"evaluation of 64": use(temporaries=20.0), "KL of 64": use()}
    plan = Plan("v5e:1x1", CHIP, 1, {"rollout": use()}, phases)
    report = plan_report(plan, config)
    assert not plan.fits() and plan._replace(phases={"KL of 64": use()}).fits()
    assert "evaluation of 64 does not fit, by 8.00 GiB a chip: lower eval.batch_size" in report
    assert re.search(r"^a batch +evaluation of 64 +KL of 64$", report, re.M)
    assert re.search(r"^peak, GiB +24.00 +5.00$", report, re.M)


def test_what_fits_gets_no_advice(config):
    costs = (Cost("layers/mlp", CYCLES, 16.0, 0.0),)
    report = plan_report(Plan("v5e:1x1", CHIP, 1, {"rollout": use(costs=costs)}), config)
    assert re.search(r"^peak, GiB +5\.00$", report, re.M)
    assert re.search(r"^bound by +memory$", report, re.M)
    # Matmuls would take 8 of the 16 s.
    assert re.search(r"^predicted, s +16\nof peak +50%$", report, re.M)
    assert "one step takes at least 9 s, 16 s as predicted" in report
    assert "does not fit" not in report


@pytest.mark.parametrize("topology", ["v5e", "v9:2x2", "4x4", ""])
def test_an_unknown_chip_is_refused(config, tmp_path, topology):
    with pytest.raises(ValueError, match=r"--topology is .*; use CHIP:SHAPE, .* v4, v5e, v5p, v6e"):
        make_plan(config, topology, tmp_path)


def test_a_mesh_unlike_the_topology_is_refused(config, tmp_path, monkeypatch):
    monkeypatch.setattr(chips, "topology_devices", lambda _: jax.devices())
    with pytest.raises(ValueError, match=r"v5e:2x4 has 8 chips, but mesh\.data .* = 1;"):
        make_plan(config, "v5e:2x4", tmp_path)


def test_without_libtpu_the_extra_is_named(config, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[plan\]'"):
        make_plan(config, "v5e:1x1", tmp_path)


needs_libtpu = pytest.mark.skipif(
    importlib.util.find_spec("libtpu") is None, reason="needs libtpu: pip install -e '.[plan]'"
)


def plan(folder, *args: str):
    """Runs the command in a folder, in which it has its cache, too."""
    config = f"--config={ROOT / 'configs/permix.py'}:tiny"
    command = [sys.executable, str(ROOT / "launch/plan.py"), config, *args]
    how = {"cwd": folder, "env": os.environ | {"PERMIX_CACHE": str(folder / "cache")}}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **how)


@needs_libtpu
def test_a_tiny_run_is_compiled_for_a_tpu_once(tmp_path):
    flags = "--topology=v5e:2x2", "--config.mesh.fsdp=2", "--config.mesh.tensor=2", "--explain"
    out = plan(tmp_path, *flags)
    assert out.returncode == 0, out.stderr
    lines = out.stderr.strip().splitlines()
    names = "rollout", "score", "update", "SFT of 32", "evaluation of 64", "KL of 64"
    assert {line.split(" in ")[0] for line in lines} == {f"note: compiled {x}" for x in names}
    assert re.search(r"^fits +yes +yes +yes$", out.stdout, re.M)
    assert "v5e:2x2: 4 chip(s) of 15.75 GiB" in out.stdout
    assert re.search(r"^score/layers/attention/attend +cycles ", out.stdout, re.M)
    assert "update/optimizer" in out.stdout
    page = tmp_path / "plan-permix-tiny-v5e-2x2.html"
    assert f"all of them: {page}" in out.stdout and "backward" in page.read_text()
    again = plan(tmp_path, *flags)
    assert (again.stdout, again.stderr) == (out.stdout, "")


@needs_libtpu
def test_a_shape_that_does_not_exist_is_refused_in_one_line(tmp_path):
    out = plan(tmp_path, "--topology=v5e:3x5")
    assert out.returncode == 1
    assert "--topology is 'v5e:3x5', which libtpu refuses" in out.stderr
    assert len(out.stderr.strip().splitlines()) == 1

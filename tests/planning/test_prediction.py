"""Predicted seconds: of small programs by hand, of random ones, and of the compiler's own."""

import importlib.util
import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from permix_jax.core.tpus import CHIPS, Chip
from permix_jax.planning.prediction import BYTES, COPIES, CYCLES, KERNEL, SHARE, predict

# A cycle is 1 ns. 100 bytes of HBM take 125 ns at the share that is reached, and over two links of
# four 250 ns.
CHIP = Chip(1.0, 1e12, 1e9, 1e9, 4, 1e9)
NS = 1e-9


def instruction(name: str, cycles: int, place: str = "", operands: str = "") -> str:
    estimate = f', backend_config={{"window_config":{{"estimated_cycles":"{cycles}"}}}}'
    named = f', metadata={{op_name="jit(f)/{place}/mul"}}' if place else ""
    return (
        f"%{name} = f32[1]{{0:S(1)}} fusion({operands}), kind=kLoop, calls=%fused{named}{estimate}"
    )


def program(entry: list[str], **blocks: list[str]) -> str:
    """A compiled program: an entry and other computations, by name, of these instructions."""
    fused = {"fused": [instruction("inside", 10**9)]}
    heads = {f"%{name} (p: f32[]) -> f32[]": lines for name, lines in (fused | blocks).items()}
    heads["ENTRY %main (p: f32[]) -> f32[]"] = entry
    return "\n".join(
        "\n".join([head + " {", *(f"  {line}" for line in lines), "}"])
        for head, lines in heads.items()
    )


def seconds(text: str, **options) -> dict[tuple[str, str], float]:
    return {cost[:2]: cost.seconds for cost in predict(text, CHIP, **options)}


def loop(name: str, body: str, condition: str, config: str = "") -> str:
    return f"%{name} = (s32[]) while(%x), condition=%{condition}, body=%{body}{config}"


def test_a_fusion_counts_once_and_costs_are_sorted_by_place():
    text = program([instruction("a", 5, "mlp"), instruction("b", 30, "head")])
    text = text.replace("ROOT", "") + "\n"
    costs = predict(text, CHIP)
    assert [cost.place for cost in costs] == ["head", "mlp"]
    assert [cost.seconds for cost in costs] == pytest.approx([30 * NS, 5 * NS])


def test_nested_loops_multiply_and_their_conditions_count():
    known = ', backend_config={"known_trip_count":{"n":"3"}}'
    text = program(
        [instruction("a", 1000, "top"), loop("w", "outer", "until")],
        outer=[instruction("b", 100, "outer"), loop("v", "inner", "always", known)],
        inner=[instruction("c", 10, "inner")],
        until=["%k = s32[] constant(5)", instruction("d", 1, "test")],
        always=["%p = pred[] parameter(0)"],
    )
    costs = seconds(text)
    wanted = {"top": 1000, "outer": 5 * 100, "inner": 5 * 3 * 10, "test": 5 * 1}
    assert costs == pytest.approx({(place, CYCLES): n * NS for place, n in wanted.items()})


def test_a_loop_of_unknown_length_runs_as_often_as_it_is_told():
    text = program([loop("w", "body", "go")], body=[instruction("a", 7, "x")], go=[])
    assert seconds(text, unknown_trips=6) == pytest.approx({("x", CYCLES): 42 * NS})


def test_the_dearest_branch_counts_whatever_the_places():
    branches = "%r = f32[] conditional(%p), branch_computations={%cheap, %dear}"
    dear = [instruction("b", 4, "b"), instruction("c", 5, "c")]
    text = program([branches], cheap=[instruction("a", 8, "a")], dear=dear)
    assert seconds(text) == pytest.approx({("b", CYCLES): 4 * NS, ("c", CYCLES): 5 * NS})


def test_a_called_computation_counts_each_time():
    call = "%r{} = f32[] call(%p), to_apply=%sub"
    text = program([call.format(1), call.format(2)], sub=[instruction("a", 3, "x")])
    assert seconds(text) == pytest.approx({("x", CYCLES): 6 * NS})


def test_what_has_no_estimate_counts_by_its_bytes_in_hbm():
    scatter = "%s = f32[25]{0} scatter(%big, %small, %fast), to_apply=%add"
    arrays = ["%big = f32[75]{0} parameter(0)", "%small = f32[5]{0} parameter(1)"]
    text = program([*arrays, "%fast = f32[25]{0:S(1)} parameter(2)", scatter])
    # 100 bytes written, at most as many read of the first operand, 20 of the second.
    assert seconds(text) == pytest.approx({("other", BYTES): 220 * NS / SHARE})


def test_an_update_in_place_counts_the_update_alone():
    update = "%s = f32[75]{0} dynamic-update-slice(%big, %small, %i)"
    arrays = ["%big = f32[75]{0} parameter(0)", "%small = f32[5]{0} parameter(1)"]
    text = program([*arrays, "%i = s32[] constant(0)", update])
    assert seconds(text) == pytest.approx({("other", BYTES): 40 * NS / SHARE})


COPY = [
    "%x = f32[25]{0} parameter(0)",
    "%s = (f32[25]{0:S(1)}, f32[25]{0}, u32[]{:S(2)}) copy-start(%x)",
    "%d = f32[25]{0:S(1)} copy-done(%s)",
]


def test_a_copy_costs_what_the_schedule_waits_for_it():
    parameter, start, done = COPY
    wait = ("mlp", COPIES)
    for cycles, waits in [(50, 75), (200, 0)]:
        between = instruction("a", cycles, "head")
        text = program([parameter, start, between, done, instruction("b", 1, "mlp", "%d")])
        assert seconds(text)[wait] == pytest.approx(waits * NS, abs=1e-15)


def test_a_copy_shares_hbm_with_the_instructions():
    parameter, start, done = COPY
    # Of its 50 ns, reading 40 bytes takes 40: only 10 are left to the copy.
    reading = instruction("a", 50, "head", "%y").replace("f32[1]{0:S(1)}", "f32[10]{0:S(1)}")
    y = "%y = f32[10]{0} parameter(1)"
    use = instruction("b", 1, "mlp", "%d")
    costs = seconds(program([parameter, y, start, reading, done, use]))
    assert costs[("mlp", COPIES)] == pytest.approx(115 * NS)


def test_copies_wait_for_each_other():
    parameter, start, done = COPY
    second = [line.replace("%s", "%s2").replace("%d", "%d2") for line in (start, done)]
    use = instruction("b", 1, "mlp", "%d2, %d")
    costs = seconds(program([parameter, start, second[0], second[1], done, use]))
    assert costs[("mlp", COPIES)] == pytest.approx(250 * NS)


def collective(opcode: str, shape: str = "f32[100]{0}", operand: str = "%p") -> str:
    return (
        f"%c = {shape} {opcode}({operand}), channel_id=4, replica_groups=[2,4]<=[8], "
        'metadata={op_name="jit(f)/mlp/add"}'
    )


@pytest.mark.parametrize(
    ("opcode", "moved"),
    [
        ("all-gather", 300),  # of 400 bytes a quarter was here
        ("all-reduce", 600),
        ("reduce-scatter", 1200),  # of 1600 a quarter stays
        ("all-to-all", 300),
    ],
)
def test_collectives_count_by_the_bytes_that_a_chip_receives(opcode, moved):
    (cost,) = predict(program([collective(opcode)]), CHIP)
    assert cost[:2] == ("mlp", opcode) and cost.link_bytes == moved
    assert cost.seconds == pytest.approx(moved * NS / SHARE * 2 + 3e-6)


def test_an_asynchronous_collective_costs_what_is_waited_for_it():
    start = collective("all-gather-start", "(f32[25]{0}, f32[100]{0})").replace("%c", "%s")
    done = "%d = f32[100]{0} all-gather-done(%s)"
    text = program([start, instruction("a", 1000, "head"), done])
    costs = {cost[:2]: cost for cost in predict(text, CHIP)}
    cost = costs[("other", "all-gather")]
    assert cost.link_bytes == 300
    assert cost.seconds == pytest.approx((300 / SHARE * 2 + 3000 - 1000) * NS)


def test_a_collective_that_runs_through_fusions_counts_once():
    part = collective("all-gather") + ', backend_config={"async_collective_fusion_config":{}}'
    ends = {
        name: [part, f'%r = f32[] custom-call(%c), custom_call_target="AsyncCollective{name}"']
        for name in ("Start", "Done")
    }
    fusion = "%f{0} = f32[100]{{0:S(1)}} fusion(%p), kind=kCustom, calls=%{0}"
    middle = instruction("a", 1000, "head").replace("%fused", "%Middle")
    text = program([fusion.format("Start"), middle, fusion.format("Done")], **ends, Middle=[part])
    costs = {cost[:2]: cost for cost in predict(text, CHIP)}
    assert set(costs) == {("head", CYCLES), ("other", "all-gather")}
    assert costs[("other", "all-gather")].link_bytes == 300
    assert costs[("other", "all-gather")].seconds == pytest.approx(750e-9 + 3e-6 - 1e-6)


def test_a_sum_that_is_cut_at_once_is_a_reduce_scatter():
    fusion = "%f = f32[25]{0} fusion(%p), kind=kCustom, calls=%all-reduce-scatter.3"
    inside = {"all-reduce-scatter.3": [collective("all-reduce")]}
    (cost,) = predict(program([fusion], **inside), CHIP)
    assert (cost.kind, cost.link_bytes) == ("reduce-scatter", 300)


def test_a_kernel_counts_by_what_it_states_or_by_its_bytes():
    call = '%k = f32[25]{0} custom-call(%x), custom_call_target="tpu_custom_call"'
    stated = ', backend_config={"cost_estimate":{"flops":"8000","bytes_accessed":"%d"}}'
    parameter = "%x = f32[25]{0} parameter(0)"

    def kernel(line):
        return seconds(program([parameter, line]))[("other", KERNEL)]

    assert kernel(call + stated % 4) == pytest.approx(8 * NS / SHARE)
    assert kernel(call + stated % 40) == pytest.approx(40 * NS / SHARE)
    assert kernel(call) == pytest.approx(200 * NS / SHARE)


# ---- random programs --------------------------------------------------------------------------

leaves = st.integers(0, 1000)
blocks = st.recursive(
    st.lists(leaves, max_size=3),
    lambda inner: st.lists(
        st.one_of(
            leaves,
            st.tuples(st.just("loop"), st.integers(1, 5), inner),
            st.tuples(st.just("branch"), inner, inner),
        ),
        max_size=3,
    ),
    max_leaves=8,
)


def cycles_of(block) -> int:
    total = 0
    for x in block:
        if isinstance(x, int):
            total += x
        elif x[0] == "loop":
            total += x[1] * cycles_of(x[2])
        else:
            total += max(map(cycles_of, x[1:]))
    return total


def written(block, found: dict[str, list[str]]) -> str:
    """Adds the computation of a block, and of those in it, to `found`; returns its name."""
    lines = []
    for i, x in enumerate(block):
        if isinstance(x, int):
            lines.append(instruction(f"i{i}", x))
        elif x[0] == "loop":
            body = written(x[2], found)
            found[f"until{len(found)}"] = [f"%k = s32[] constant({x[1]})"]
            lines.append(loop(f"i{i}", body, list(found)[-1]))
        else:
            names = ", ".join(f"%{written(branch, found)}" for branch in x[1:])
            lines.append(f"%i{i} = f32[] conditional(%p), branch_computations={{{names}}}")
    found[name := f"block{len(found)}"] = lines
    return name


@given(blocks)
def test_any_nesting_adds_up(block):
    found = {}
    name = written(block, found)
    text = program([f"%r = f32[] call(%p), to_apply=%{name}"], **found)
    total = sum(cost.seconds for cost in predict(text, CHIP))
    assert total == pytest.approx(cycles_of(block) * NS)


# ---- the compiler's own programs --------------------------------------------------------------

_COMPILE = """
from permix_jax.planning.environment import compile_for_tpu
compile_for_tpu()
import json
import jax, jax.numpy as jnp
from jax.sharding import SingleDeviceSharding
from permix_jax.core.tpus import CHIPS
from permix_jax.planning.chips import topology_devices
from permix_jax.planning.prediction import CYCLES, predict

jax.config.update("jax_enable_compilation_cache", False)
found = {}
for topology in ("v4:2x2x1", "v5e:2x2", "v5p:2x2x1", "v6e:2x2"):
    chip, here = topology[:topology.index(":")], SingleDeviceSharding(topology_devices(topology)[0])

    def seconds(function, *shapes, dtype=jnp.bfloat16):
        arrays = [jax.ShapeDtypeStruct(x, dtype, sharding=here) for x in shapes]
        text = jax.jit(function).lower(*arrays).compile().as_text()
        return sum(cost.seconds for cost in predict(text, CHIPS[chip]) if cost.kind == CYCLES)

    def repeated(x, w, times):
        return jax.lax.fori_loop(0, times, lambda _, x: jnp.tanh(x @ w), x)

    found[chip] = {
        "matmul": seconds(jnp.matmul, (4096, 4096), (4096, 4096)),
        "stream": seconds(lambda x: x * 2, (2**26,), dtype=jnp.float32),
    }
    if chip == "v5e":
        for n in (10, 30):
            shapes = (1024, 1024), (1024, 1024)
            found[f"loop {n}"] = seconds(lambda x, w: repeated(x, w, n), *shapes)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def compiled():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("needs libtpu: pip install -e '.[plan]'")
    command = [sys.executable, "-c", _COMPILE]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("name", CHIPS)
def test_the_clock_sets_matmuls_and_streams_just_above_the_data_sheet(compiled, name):
    """With a clock that is wrong by a quarter, one of the two would be out of its bounds."""
    chip, found = CHIPS[name], compiled[name]
    assert 1.0 <= found["matmul"] / (2 * 4096**3 / chip.flops) <= 1.2
    assert 1.2 <= found["stream"] / (2 * 2**28 / chip.hbm_bandwidth) <= 1.4


def test_a_compiled_loop_costs_its_body_each_time(compiled):
    """30 matmuls of 1024 take three times as long as 10, but for the copies in and out."""
    chip, each = CHIPS["v5e"], (compiled["loop 30"] - compiled["loop 10"]) / 20
    bound = 2 * 1024**3 / chip.flops
    assert bound < each < 3 * bound
    assert compiled["loop 10"] == pytest.approx(10 * each, rel=0.1)

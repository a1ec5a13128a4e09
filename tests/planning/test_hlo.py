"""The text of compiled programs, read from small ones written by hand."""

import pytest

from permix_jax.planning.hlo import (
    computations,
    group_size,
    in_hbm,
    place,
    places,
    size,
    trip_count,
)

PROGRAM = """\
HloModule jit_step, is_scheduled=true

%body (p: (s32[], f32[2])) -> (s32[], f32[2]) {
  %p = (s32[]{:T(128)}, /*index=1*/f32[2]{0:T(128)S(1)}) parameter(0)
  ROOT %t = (s32[], f32[2]) tuple(%p, %p)
}

ENTRY %main.1 (x: f32[2]) -> f32[2] {
  %c = s32[]{:T(128)} constant(5)
  %x = f32[2]{0:T(128)} parameter(0), metadata={op_name="x"}
  %w.1 = (s32[], f32[2]) while(%x), condition=%cond, body=%body, backend_config={"a":"1"}
  ROOT %y = f32[2]{0} get-tuple-element(%w.1), index=1
}
"""


def test_instructions_are_read_with_what_they_call():
    blocks, entry = computations(PROGRAM)
    assert entry == "main.1" and list(blocks) == ["body", "main.1"]
    constant, x, loop, _ = blocks["main.1"]
    assert (constant.opcode, constant.attributes) == ("constant", "5")
    assert (x.name, x.opcode, x.operands) == ("x", "parameter", ())
    assert (loop.opcode, loop.operands, loop.called()) == ("while", ("x",), ["cond", "body"])
    assert blocks["body"][0].shape == "(s32[]{:T(128)}, /*index=1*/f32[2]{0:T(128)S(1)})"
    assert blocks["body"][1].operands == ("p", "p")


def test_a_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="without an ENTRY"):
        computations("HloModule nothing\n")


@pytest.mark.parametrize(
    ("attributes", "called"),
    [
        ("branch_computations={%a, %b.1}, metadata={}", ["a", "b.1"]),
        ("true_computation=%a, false_computation=%b", ["a", "b"]),
        ("kind=kLoop, calls=%fused.2, metadata={}", ["fused.2"]),
        ("to_apply=%add", []),  # what a reduction adds with is no program of its own
    ],
)
def test_branches_and_fusions_name_what_they_run(attributes, called):
    line = f"ENTRY %e () -> f32[] {{\n  %x = f32[] reduce(%y), {attributes}\n}}"
    (x,) = computations(line)[0]["e"]
    assert x.called() == called


def test_sizes_are_summed_by_dtype_and_by_memory():
    assert size("f32[4,8]{1,0}") == 128
    assert size("(bf16[3]{0:T(256)}, pred[2]{0}, s4[4]{0}, u32[]{:S(2)})") == 6 + 2 + 2 + 4
    assert size("token[]") == 0
    assert size("(f32[2]{0:T(128)S(1)}, f32[3]{0:T(128)}, bf16[1])", in_hbm) == 12 + 2


@pytest.mark.parametrize(
    ("groups", "n"),
    [
        ("[2,4]<=[8]", 4),
        ("[2,2]<=[2,2]T(1,0)", 2),
        ("{{0,1,2},{3,4,5}}", 3),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_0'}", 4),
        ("mesh['axis_0'=4,'axis_1'=2] {'axis_1','axis_0'}", 8),
        ("mesh['axis_0'=8] {'axis_0':(2)4}", 4),
    ],
)
def test_a_group_is_counted_however_it_is_written(groups, n):
    assert group_size(f"channel_id=1, replica_groups={groups}, use_global_device_ids=true") == n


LOOP = """\
ENTRY %c (p: (s32[])) -> pred[] {{
  %p = (s32[]) parameter(0)
  {constants}
  ROOT %lt = pred[] compare(%p, %k), direction=LT{config}
}}"""


@pytest.mark.parametrize(
    ("constants", "config", "trips"),
    [
        ("%k = s32[]{:T(128)} constant(7)", "", 7),
        ("%k = s32[] constant(7)\n  %z = s32[] constant(0)", "", 7),
        ("%k = f32[] constant(9)\n  %l = pred[] constant(true)", "", None),
        ("", "", None),
        ("%k = s32[] constant(7)", ', backend_config={"known_trip_count":{"n":"3"}}', 3),
        ("%k = s32[] constant(7)", ', backend_config={"known_trip_count":{"n":"0"}}', 0),
    ],
)
def test_a_loop_runs_to_the_constant_of_its_condition(constants, config, trips):
    condition = computations(LOOP.format(constants=constants, config=config))[0]["c"]
    assert trip_count(condition[-1], condition) == trips


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("jit(step)/while/body/jvp(Decoder)/layers_12/mlp/jit(silu)/mul", "layers/mlp"),
        ("jit(step)/while/body/jvp()/head/while/body/closed_call/cond/branch_1_fun/exp", "head"),
        (
            "jit(step)/transpose(jvp(Decoder))/jvp(Decoder)/checkpoint/layers_0/attention/attend"
            "/while/body/bnkgqc,bnkcd->bnkgqd/dot_general",
            "backward/layers/attention/attend",
        ),
        (
            "jit(step)/transpose(jvp(Decoder))/jvp(Decoder)/checkpoint/rematted_computation"
            "/layers_0/mlp/dot_general",
            "again/layers/mlp",
        ),
        ("jit(sample)/while/body/decode/Decoder.unembed/head/dot_general", "decode/head"),
        ("jit(step)/optimizer/mul;jit(step)/optimizer/add", "optimizer"),
        ("jit(step)/add", ""),
        ("params[\\'layers_0\\'][\\'mlp\\']", ""),
        ("broadcast.12", ""),
    ],
)
def test_a_place_is_the_scopes_of_the_source(name, found):
    assert place(f'x, metadata={{op_name="{name}" stack_frame_id=3}}, y') == found


def test_what_has_no_name_belongs_to_its_first_user_with_one():
    text = """\
ENTRY %e () -> f32[] {
  %p = f32[] parameter(0), metadata={op_name="params['mlp']"}
  %s = f32[] copy-start(%p)
  %d = f32[] copy-done(%s)
  %m = f32[] multiply(%d, %d), metadata={op_name="jit(f)/mlp/mul"}
  %a = f32[] add(%d, %m), metadata={op_name="jit(f)/head/add"}
  ROOT %t = f32[] tuple(%a)
}"""
    found = places(computations(text)[0]["e"])
    named = {"p": "mlp", "s": "mlp", "d": "mlp", "m": "mlp", "a": "head", "t": ""}
    assert found == named

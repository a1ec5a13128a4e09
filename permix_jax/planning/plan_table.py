"""A plan as text: its table, and which fields to change if it does not fit."""

from ml_collections import ConfigDict

from permix_jax.planning.chips import GIB
from permix_jax.planning.plan import Plan, Use
from permix_jax.report.tables import text_table

_NOTES = """\
Peak: what lies on the chip all the time, and what the program adds. KV cache: without padding.
At least: the slowest of matmuls at the chip's peak, HBM and link traffic at its bandwidth. Matmuls
are counted from the traced program. HBM traffic of score and update: the compiler's count, times
the matmuls' share that it counted (it counts a loop once); of rollout: its count, and the weights
and the whole KV cache again for each further token. Link traffic: weights gathered over mesh.fsdp,
activations summed over mesh.tensor. Every completion is taken to be of full length."""


def plan_report(plan: Plan, config: ConfigDict) -> str:
    """The table, the verdict, which fields to change if it does not fit, and notes."""
    verdict = [
        f"{plan.topology}: {plan.chips} chip(s) of {plan.chip.hbm / GIB:.2f} GiB usable HBM; "
        f"one step takes at least {plan.seconds():.3g} s"
    ]
    for name, use in plan.programs.items():
        if not use.fits(plan.chip):
            over = (use.peak() - plan.chip.hbm) / GIB
            verdict.append(f"{name} does not fit, by {over:.2f} GiB a chip: {advice(use, config)}")
    return "\n".join([plan_table(plan), "", *verdict, "", _NOTES])


def plan_table(plan: Plan) -> str:
    """Memory, work and time of each program on one chip."""
    uses = plan.programs.values()
    kinds = next(iter(uses)).resident
    seconds = [use.seconds(plan.chip) for use in uses]
    cells = {
        **{f"{kind}, GiB": [_gib(use.resident[kind]) for use in uses] for kind in kinds},
        "KV cache, GiB": [_gib(use.cache) for use in uses],
        "temporaries, GiB": [_gib(use.temporaries) for use in uses],
        "peak, GiB": [_gib(use.peak()) for use in uses],
        "fits": ["yes" if use.fits(plan.chip) else "no" for use in uses],
        "matmuls, TFLOP": [_number(use.flops, 1e12) for use in uses],
        "HBM traffic, GB": [_number(use.hbm_bytes, 1e9) for use in uses],
        "link traffic, GB": [_number(use.ici_bytes, 1e9) for use in uses],
        "at least, s": [_number(max(each.values())) for each in seconds],
        "bound by": [max(each, key=each.get) for each in seconds],
    }
    return text_table(["per chip", *plan.programs], [[label, *row] for label, row in cells.items()])


def advice(use: Use, config: ConfigDict) -> str:
    """Which fields make the largest part of a program smaller."""
    resident = sum(use.resident.values())
    if resident >= max(use.cache, use.temporaries):
        remedy = "take more chips and raise mesh.fsdp or mesh.tensor"
        adapters = "" if config.lora.rank else ", or train adapters alone (lora.rank = 16)"
        return f"most of it is parameters and optimiser; {remedy}{adapters}"
    if use.cache >= use.temporaries:
        return (
            "most of it is the KV cache; raise rollout.micro_batches or mesh.data, or lower "
            "rollout.group_size, train.problems_per_step or rollout.max_new_tokens"
        )
    least = config.rollout.max_prompt_tokens + config.rollout.max_new_tokens
    if config.model.remat != "full":
        remedy = "set model.remat to full"
    elif config.train.micro_batch_tokens > least:
        remedy = f"lower train.micro_batch_tokens (to at least {least}), or model.head_chunk"
    else:
        remedy = "raise mesh.tensor, or lower model.head_chunk or rollout.max_new_tokens"
    return f"most of it is temporaries; {remedy}"


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}"


def _number(value: float | None, unit: float = 1) -> str:
    return "-" if value is None else f"{value / unit:.3g}"

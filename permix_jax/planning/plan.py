"""Whether a GRPO run fits a TPU topology, how fast it could be there at best, and both as text."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.policies import build_policy, lora_config
from permix_jax.app.validation import require_model_fits, require_valid
from permix_jax.core.tpus import GIB, Chip
from permix_jax.formats.huggingface import config_from_hf
from permix_jax.formats.published import CONFIGS
from permix_jax.models.config import ModelConfig
from permix_jax.models.transformer import Decoder
from permix_jax.planning.chips import chip_of, topology_mesh
from permix_jax.planning.compiled import (
    Arguments,
    Compiled,
    bytes_per_chip,
    compile_programs,
    distinct_prompts,
    step_programs,
)
from permix_jax.planning.costs import (
    cache_bytes,
    decode_bytes,
    link_bytes,
    read_share,
    step_tokens,
    width,
)
from permix_jax.planning.other_programs import Phase, phase_programs
from permix_jax.planning.prediction import Cost
from permix_jax.report.tables import text_table

_NOTES = """\
Peak: what lies on the chip all the time, and what the program adds. KV cache: without padding.
At least: the slowest of matmuls at the chip's peak, HBM and link traffic at its bandwidth. Matmuls
are counted from the traced program. HBM traffic of score and update: the compiler's count, times
the matmuls' share that it counted (it counts a loop once); of rollout: its count, and the weights
and the written blocks of the KV cache again for each further token. Link traffic: weights gathered
over mesh.fsdp, activations summed over mesh.tensor. Every completion is taken to be of full length.
Predicted: the cycles that the compiler counts, loops and the dearest branches included; copies and
links where its schedule waits for them; at 80 % of the chip's peak what it does not count. Add
--explain to see what takes it. Of peak: the matmuls' share of the chip's peak in that time."""


class Use(NamedTuple):
    """What one program costs a chip."""

    resident: dict[str, int]  # bytes of what stays on the chip while the program runs
    cache: float  # bytes of keys and values
    temporaries: float  # bytes of all else that it makes; if it does not fit, of what is missing
    compiled: bool  # whether the compiler found room for the program alone
    flops: float  # its work in one step, as the two below
    hbm_bytes: float | None  # None for a program that was traced and not compiled
    ici_bytes: float
    costs: tuple[Cost, ...] = ()  # what takes its time in one step, as the compiler schedules it

    def peak(self) -> float:
        return sum(self.resident.values()) + self.cache + self.temporaries

    def fits(self, chip: Chip) -> bool:
        return self.compiled and self.peak() <= chip.hbm

    def seconds(self, chip: Chip) -> dict[str, float]:
        """Lower bounds of its time, one for each part of the chip."""
        return {
            "matmuls": self.flops / chip.flops,
            "memory": (self.hbm_bytes or 0) / chip.hbm_bandwidth,
            "links": self.ici_bytes / chip.ici_bandwidth,
        }

    def predicted(self) -> float | None:
        """Seconds in one step; None for a program that was not compiled, or does not fit."""
        return sum(cost.seconds for cost in self.costs) if self.costs else None


class Plan(NamedTuple):
    """The programs of a step on a topology of `chips` chips, in the order of the step.

    phases: of the run's other phases, what a batch takes. What bounds its time is not counted.
    """

    topology: str
    chip: Chip
    chips: int
    programs: dict[str, Use]
    phases: Mapping[str, Use] = MappingProxyType({})

    def fits(self) -> bool:
        return all(use.fits(self.chip) for use in (*self.programs.values(), *self.phases.values()))

    def seconds(self) -> float:
        """A lower bound of a step: the sum over programs of what their slowest part needs."""
        return sum(max(use.seconds(self.chip).values()) for use in self.programs.values())

    def predicted(self) -> float | None:
        """Seconds of a step; None if one of its programs has none."""
        each = [use.predicted() for use in self.programs.values()]
        return None if None in each else sum(each)


def make_plan(config: ConfigDict, topology: str, cache: Path) -> Plan:
    """Compiles the run's programs for a topology ("v5e:4x4"). Takes minutes.

    `cache` is the folder of converted models. Raises ValueError or FileNotFoundError, in one line,
    for bad input; ImportError without the `libtpu` package.
    """
    model, mesh = _model_on(config, topology, cache)
    with jax.set_mesh(mesh):
        arguments, steps = step_programs(config, model, mesh)
        phases = phase_programs(config, model, mesh, arguments)
        programs = steps | {name: phase.program for name, phase in phases.items()}
        found = compile_programs(programs, topology, cache)
        uses = {name: use_of(name, found[name], arguments, model.config, config) for name in steps}
    resident = resident_bytes(arguments, config)
    others = {name: phase_use(x, found[name], resident, mesh.size) for name, x in phases.items()}
    return Plan(topology, chip_of(topology), mesh.size, uses, others)


def least_seconds(config: ConfigDict, topology: str, cache: Path) -> dict[str, float]:
    """A lower bound of the seconds of each program, which is traced and not compiled.

    Unlike `Plan.seconds` it leaves out the HBM traffic of score and update, which only compiled
    programs tell. Takes seconds, and says nothing about memory. Raises as `make_plan`.
    """
    model, mesh = _model_on(config, topology, cache)
    with jax.set_mesh(mesh):
        arguments, programs = step_programs(config, model, mesh)
        found = {name: Compiled(program.flops(), 0, 0) for name, program in programs.items()}
        uses = {name: use_of(name, found[name], arguments, model.config, config) for name in found}
    return {name: max(use.seconds(chip_of(topology)).values()) for name, use in uses.items()}


def _model_on(config: ConfigDict, topology: str, cache: Path) -> tuple[Decoder, Mesh]:
    """The policy's decoder, and the mesh of the topology's chips."""
    require_valid(config)
    mesh = topology_mesh(topology, config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    model = decoder_of(config, cache, mesh)
    require_model_fits(model.config, config)
    return model, mesh


def decoder_of(config: ConfigDict, cache: Path, mesh: Mesh) -> Decoder:
    """The policy's decoder. Nothing is fetched for the models of the presets: `CONFIGS` has their
    shapes. Raises as `make_plan`.
    """
    m, lora = config.model, lora_config(config)
    if m.source not in CONFIGS:
        return build_policy(config, cache, mesh)[0].model
    param_dtype = config.lora.base_dtype if lora else m.param_dtype
    fields = {"param_dtype": param_dtype, "dtype": m.dtype, "remat": m.remat, "lora": lora}
    return Decoder(replace(config_from_hf(CONFIGS[m.source]), attention=m.attention, **fields))


def use_of(
    name: str, program: Compiled, arguments: Arguments, model: ModelConfig, config: ConfigDict
) -> Use:
    """What the program `name` (rollout, score or update) of a step costs a chip.

    Call it within `jax.set_mesh(mesh)`.
    """
    r, mesh, rows = config.rollout, config.mesh, arguments.rows.tokens
    weights, prompts = _count(arguments.params), distinct_prompts(config)
    flops, cache = program.flops / (mesh.data * mesh.fsdp * mesh.tensor), 0
    costs = program.costs
    if name == "rollout":
        cache = cache_bytes(model, config, prompts)
        parts, tokens = r.micro_batches, step_tokens(config, prompts)
        flops *= parts
        costs = tuple(cost.times(parts) for cost in costs)
        read = cache * read_share(config, prompts)
        one_token = decode_bytes(model, weights, read, config)
        # The compiler counts the prefill, and one token of the loop.
        counted = program.once_bytes or one_token
        hbm_bytes = (counted + (r.max_new_tokens - 1) * one_token) * parts
    else:
        parts, tokens = rows.shape[0], rows.size
        hbm_bytes = program.once_bytes
        if hbm_bytes is not None:
            hbm_bytes *= max(1, flops / program.once_flops)
    weight_passes, passes = parts, 1
    if name == "update":
        # Forward, backward, and with full remat forward again. Then the gradients of what is
        # trained, which are summed in f32.
        passes = 2 + (model.remat == "full")
        gradients = _summed_gradients(arguments, model) / weights * 4 / width(model)
        weight_passes = passes * parts + gradients
    temporaries = program.temporaries
    if temporaries is None:
        own = {"rollout": arguments.params, "score": arguments.reference}
        own = own.get(name, (arguments.state, arguments.frozen))
        temporaries = program.needs - bytes_per_chip(own)
    return Use(
        resident_bytes(arguments, config),
        min(cache, temporaries),
        max(temporaries - cache, 0),
        program.temporaries is not None,
        flops,
        hbm_bytes,
        link_bytes(model, weights, config, tokens, weight_passes, passes),
        costs,
    )


def _summed_gradients(arguments: Arguments, model: ModelConfig) -> int:
    """Numbers of gradients that the chips add up in an update.

    They are those of each micro-batch, but the head's, whose sums are added once.
    """
    trained, parts = _count(arguments.state.params), arguments.rows.tokens.shape[0]
    head = 0 if arguments.frozen else model.vocab_size * model.embed_dim
    in_each = trained if model.tie_embeddings else trained - head
    return parts * in_each + head


def phase_use(phase: Phase, program: Compiled, training: dict[str, int], chips: int) -> Use:
    """What a batch of a phase costs a chip; `training`: bytes of what a training holds there."""
    given = bytes_per_chip(phase.given)
    temporaries = program.needs - given if program.temporaries is None else program.temporaries
    return Use(
        resident=training if phase.beside else {"given": given},
        cache=0,
        temporaries=temporaries,
        compiled=program.temporaries is not None,
        flops=program.flops / chips,
        hbm_bytes=None,
        ici_bytes=0.0,
        costs=program.costs,
    )


def resident_bytes(arguments: Arguments, config: ConfigDict) -> dict[str, int]:
    """Bytes a chip of what a run holds all the time. LoRA's frozen base is its reference."""
    frozen = bytes_per_chip(arguments.frozen)
    reference = bytes_per_chip(arguments.reference) if config.grpo.kl_weight and not frozen else 0
    return {
        "parameters": bytes_per_chip(arguments.state.params),
        "optimiser": bytes_per_chip(arguments.state.opt_state),
        "frozen base": frozen,
        "reference": reference,
    }


def _count(params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))


def plan_report(plan: Plan, config: ConfigDict) -> str:
    """The table, the verdict, which fields to change if it does not fit, and notes."""
    verdict = [
        f"{plan.topology}: {plan.chips} chip(s) of {plan.chip.hbm / GIB:.2f} GiB usable HBM; "
        f"one step takes at least {plan.seconds():.3g} s"
    ]
    if (predicted := plan.predicted()) is not None:
        verdict[0] += f", {predicted:.3g} s as predicted"
    for name, use in (*plan.programs.items(), *plan.phases.items()):
        if not use.fits(plan.chip):
            over = (use.peak() - plan.chip.hbm) / GIB
            remedy = _phase_advice(name) if name in plan.phases else advice(use, config)
            verdict.append(f"{name} does not fit, by {over:.2f} GiB a chip: {remedy}")
    phases = ["", phase_table(plan)] if plan.phases else []
    return "\n".join([plan_table(plan), *phases, "", *verdict, "", _NOTES])


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
        "predicted, s": [_number(use.predicted()) for use in uses],
        "of peak": [_share(use, plan.chip) for use in uses],
    }
    return text_table(["per chip", *plan.programs], [[label, *row] for label, row in cells.items()])


def phase_table(plan: Plan) -> str:
    """Memory, work and time of a batch of each phase beside the steps, on one chip."""
    uses = plan.phases.values()
    cells = {
        "resident, GiB": [_gib(sum(use.resident.values())) for use in uses],
        "temporaries, GiB": [_gib(use.temporaries) for use in uses],
        "peak, GiB": [_gib(use.peak()) for use in uses],
        "fits": ["yes" if use.fits(plan.chip) else "no" for use in uses],
        "matmuls, TFLOP": [_number(use.flops, 1e12) for use in uses],
        "predicted, s": [_number(use.predicted()) for use in uses],
        "of peak": [_share(use, plan.chip) for use in uses],
    }
    return text_table(["a batch", *plan.phases], [[label, *row] for label, row in cells.items()])


def _phase_advice(name: str) -> str:
    """Which fields make a batch of a phase smaller."""
    if name.startswith("evaluation"):
        return "lower eval.batch_size, or raise mesh.fsdp or mesh.tensor"
    return "set model.remat to full, lower train.micro_batch_tokens, or raise mesh.tensor"


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


def _share(use: Use, chip: Chip) -> str:
    predicted = use.predicted()
    return "-" if not predicted else f"{use.flops / chip.flops / predicted:.0%}"

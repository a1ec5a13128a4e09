"""Whether a GRPO run fits a TPU topology, and how fast it could be there at best."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.policies import build_policy, lora_config
from permix_jax.app.validation import require_model_fits, require_valid
from permix_jax.formats.huggingface import config_from_hf
from permix_jax.formats.published import CONFIGS
from permix_jax.models.config import ModelConfig
from permix_jax.models.transformer import Decoder
from permix_jax.planning.chips import Chip, chip_of, topology_mesh
from permix_jax.planning.compiled import (
    Arguments,
    Compiled,
    bytes_per_chip,
    compile_program,
    distinct_prompts,
    step_programs,
)
from permix_jax.planning.costs import cache_bytes, decode_bytes, link_bytes, width


class Use(NamedTuple):
    """What one program costs a chip.

    resident: bytes of what lies on the chip while it runs, by name. cache: of keys and values.
    temporaries: all else that it makes; where it does not fit, what the compiler misses at least.
    compiled: whether it fits by itself.
    flops, hbm_bytes, ici_bytes: its work in a step; hbm_bytes is None where only a compiled
      program can tell.
    """

    resident: dict[str, int]
    cache: float
    temporaries: float
    compiled: bool
    flops: float
    hbm_bytes: float | None
    ici_bytes: float

    def peak(self) -> float:
        return sum(self.resident.values()) + self.cache + self.temporaries

    def fits(self, chip: Chip) -> bool:
        return self.compiled and self.peak() <= chip.hbm

    def seconds(self, chip: Chip) -> dict[str, float]:
        """The least time that each part of the chip needs for it."""
        return {
            "matmuls": self.flops / chip.flops,
            "memory": (self.hbm_bytes or 0) / chip.hbm_bandwidth,
            "links": self.ici_bytes / chip.ici_bandwidth,
        }


class Plan(NamedTuple):
    """The programs of a step on a topology of `chips` chips, in the order of the step."""

    topology: str
    chip: Chip
    chips: int
    programs: dict[str, Use]

    def fits(self) -> bool:
        return all(use.fits(self.chip) for use in self.programs.values())

    def seconds(self) -> float:
        """The least time of one step: each program bound by its slowest part."""
        return sum(max(use.seconds(self.chip).values()) for use in self.programs.values())


def make_plan(config: ConfigDict, topology: str, cache: Path) -> Plan:
    """Compiles the run's rollout, scoring and update for a topology. Takes minutes.

    Args:
      topology: of TPU chips, such as "v5e:4x4".
      cache: where converted models are kept.

    Raises:
      ValueError, FileNotFoundError: bad input, in one line.
      ImportError: without the `libtpu` package.
    """
    model, mesh = _model_on(config, topology, cache)
    # JAX cannot read back what it caches of a program for devices that are not there.
    jax.config.update("jax_enable_compilation_cache", False)
    with jax.set_mesh(mesh):
        arguments, programs = step_programs(config, model, mesh)
        uses = {
            name: use_of(name, compile_program(name, program), arguments, model.config, config)
            for name, program in programs.items()
        }
    return Plan(topology, chip_of(topology), mesh.size, uses)


def least_seconds(config: ConfigDict, topology: str, cache: Path) -> dict[str, float]:
    """The least seconds of each program of a step, which is traced and not compiled.

    As `Plan.seconds`, but for the HBM traffic of score and update, which only compiled programs
    tell. Takes seconds, and says nothing of memory. Raises as `make_plan`.
    """
    model, mesh = _model_on(config, topology, cache)
    with jax.set_mesh(mesh):
        arguments, programs = step_programs(config, model, mesh)
        found = {}
        for name, program in programs.items():
            traced = Compiled(program.flops(), 0, 0, None, None)
            use = use_of(name, traced, arguments, model.config, config)
            found[name] = max(use.seconds(chip_of(topology)).values())
    return found


def _model_on(config: ConfigDict, topology: str, cache: Path) -> tuple[Decoder, Mesh]:
    """The policy's decoder, and the mesh of the topology's chips."""
    require_valid(config)
    mesh = topology_mesh(topology, config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    model = _model(config, cache, mesh)
    require_model_fits(model.config, config)
    return model, mesh


def _model(config: ConfigDict, cache: Path, mesh: Mesh) -> Decoder:
    """The policy's decoder; nothing is fetched for the models that presets are made for."""
    m, lora = config.model, lora_config(config)
    if m.source not in CONFIGS:
        return build_policy(config, cache, mesh)[0].model
    param_dtype = config.lora.base_dtype if lora else m.param_dtype
    shape = config_from_hf(CONFIGS[m.source], param_dtype, m.dtype, m.remat)
    return Decoder(replace(shape, lora=lora))


def use_of(
    name: str, program: Compiled, arguments: Arguments, model: ModelConfig, config: ConfigDict
) -> Use:
    """What a compiled program costs a chip, with all that lies there while it runs."""
    chips = config.mesh.data * config.mesh.fsdp * config.mesh.tensor
    resident = resident_bytes(arguments, config)
    taken = {"rollout": arguments.params, "score": arguments.base}
    own = taken.get(name, (arguments.state, arguments.frozen))
    cache = cache_bytes(model, config, distinct_prompts(config)) if name == "rollout" else 0
    temporaries = program.temporaries
    if temporaries is None:
        temporaries = program.needs - bytes_per_chip(own)
    return Use(
        resident,
        min(cache, temporaries),
        max(temporaries - cache, 0),
        program.temporaries is not None,
        program.flops / chips * (config.rollout.micro_batches if name == "rollout" else 1),
        _hbm_bytes(name, program, arguments, model, config),
        _ici_bytes(name, arguments, model, config),
    )


def resident_bytes(arguments: Arguments, config: ConfigDict) -> dict[str, int]:
    """Bytes a chip of what a run holds all the time. LoRA's frozen base is its reference."""
    frozen = bytes_per_chip(arguments.frozen)
    reference = bytes_per_chip(arguments.base) if config.grpo.kl_weight and not frozen else 0
    return {
        "parameters": bytes_per_chip(arguments.state.params),
        "optimiser": bytes_per_chip(arguments.state.opt_state),
        "frozen base": frozen,
        "reference": reference,
    }


def _hbm_bytes(name, program: Compiled, arguments: Arguments, model, config) -> float | None:
    if name == "rollout":
        cache = cache_bytes(model, config, distinct_prompts(config))
        one_token = decode_bytes(model, _count(arguments.params), cache, config)
        # What was counted once: prefill, and one token.
        rest = config.rollout.max_new_tokens - 1
        once = program.once_bytes or one_token
        return (once + rest * one_token) * config.rollout.micro_batches
    if program.once_bytes is None:
        return None
    chips = config.mesh.data * config.mesh.fsdp * config.mesh.tensor
    return program.once_bytes * max(1, program.flops / chips / program.once_flops)


def _ici_bytes(name, arguments: Arguments, model, config) -> float:
    if name == "rollout":
        tokens = arguments.batch.prompt_tokens.size + arguments.batch.completion_tokens.size
    else:
        tokens = arguments.packing.tokens.size
    parts = arguments.packing.tokens.shape[0]
    # Forward, backward, and with full remat forward again; then the gradients, of what is trained,
    # which are summed in f32.
    walks = 2 + (model.remat == "full")
    gradients = _count(arguments.state.params) / _count(arguments.params) * 4 / width(model)
    weight_passes, passes = {
        "rollout": (config.rollout.micro_batches, 1),  # gathered once for all tokens
        "score": (parts, 1),
        "update": ((walks + gradients) * parts, walks),
    }[name]
    return link_bytes(model, _count(arguments.params), config, tokens, weight_passes, passes)


def _count(params) -> int:
    return sum(x.size for x in jax.tree.leaves(params))

"""The programs of a GRPO step, traced and compiled without their arguments."""

import hashlib
import json
import logging
import os
import re
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from math import prod
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ml_collections import ConfigDict

from permix_jax.core.files import read_object, write_json
from permix_jax.core.sharding import spec
from permix_jax.models.attention import PackedLayout
from permix_jax.models.logprobs import score
from permix_jax.models.packing import PackedRows, RowShape
from permix_jax.models.params import abstract_params, narrowed, split_trained, without_lora
from permix_jax.models.transformer import Decoder
from permix_jax.planning import hlo, prediction
from permix_jax.planning.chips import chip_of
from permix_jax.planning.costs import matmul_flops
from permix_jax.planning.prediction import Cost, predict
from permix_jax.rollout.sampler import older_blocks, sample
from permix_jax.train.loss import LossTokens
from permix_jax.train.programs import (
    batch_shapes,
    grpo_programs,
    loss_config,
    prompts_are_shared,
    rollout_sampling,
    rollouts_per_step,
    scores_trainer,
    scoring,
    step_shapes,
)
from permix_jax.train.state import Programs, TrainState
from permix_jax.train.supervised import SftBatch, SftTokens

_LOG = logging.getLogger(__name__)
_UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


class Arguments(NamedTuple):
    """All that a GRPO step works on, as ShapeDtypeStructs with shardings.

    `prompts` and `keys` are of one of the `rollout.micro_batches` parts. The batch is that of
    prompts and completions of full length, in the widest rows.
    """

    params: dict  # the policy's, adapters included
    base: dict  # the base's, without adapters
    reference: dict  # what the KL is to: the base as a training holds it
    frozen: dict  # the parameters that are not trained
    state: TrainState
    prompts: tuple  # tokens [U, P], mask [U, P]
    keys: jax.ShapeDtypeStruct  # [N]
    rows: PackedRows
    tokens: LossTokens
    rehearsal: tuple[SftBatch, ...]  # what the update takes beside them, if anything


class Compiled(NamedTuple):
    """What the compiler says of a program; of one that does not fit, only `flops` and `needs`."""

    flops: int  # of all matmuls on all chips together, every iteration of a loop counted
    needs: int  # bytes a chip: arguments, outputs and temporaries
    temporaries: int | None = None  # those bytes without the arguments
    once_flops: float | None = None  # of one chip, the body of each loop counted once
    once_bytes: float | None = None
    costs: tuple[Cost, ...] = ()  # what takes its time on a chip


def abstract_arguments(
    config: ConfigDict, model: Decoder, programs: Programs, mesh: Mesh
) -> Arguments:
    """The largest arguments that a step of the config has: everything at full length."""
    r = config.rollout
    U = distinct_prompts(config) // r.micro_batches
    N = rollouts_per_step(config) // r.micro_batches
    params = abstract_params(model, mesh)
    _, frozen = split_trained(model, params)
    rows = abstract_rows(step_shapes(config)[-1], mesh)
    number = rows.targets.update(dtype=jnp.float32)
    rehearsal = ()
    if config.rehearsal.weight:
        shapes = batch_shapes(config, config.rehearsal.rows, r.max_new_tokens)
        answers = abstract_rows(shapes[-1], mesh)
        weights = answers.targets.update(dtype=jnp.float32)
        rehearsal = (SftBatch(answers, SftTokens(weights)),)
    return Arguments(
        params=params,
        base=frozen or params,
        reference=frozen or (params if programs.abstract.reference else narrowed(model, params)),
        frozen=frozen,
        state=programs.abstract,
        prompts=abstract_prompts(U, config, mesh),
        keys=abstract_keys(N, mesh),
        rows=rows,
        tokens=LossTokens(
            *[number] * 4,
            rollout=rows.targets if loss_config(config).of_completions else None,
            reference=number if config.grpo.kl_weight else None,
            trainer=number if scores_trainer(config) else None,
        ),
        rehearsal=rehearsal,
    )


def abstract_prompts(number: int, config: ConfigDict, mesh: Mesh) -> tuple:
    """Tokens and mask of so many prompts of full length, as ShapeDtypeStructs."""
    shape, by_row = (number, config.rollout.max_prompt_tokens), NamedSharding(mesh, spec("batch"))
    return tuple(jax.ShapeDtypeStruct(shape, x, sharding=by_row) for x in (jnp.int32, bool))


def abstract_keys(number: int, mesh: Mesh) -> jax.ShapeDtypeStruct:
    """So many random keys."""
    dtype = jax.eval_shape(lambda: jax.random.key(0)).dtype
    return jax.ShapeDtypeStruct((number,), dtype, sharding=NamedSharding(mesh, spec("batch")))


def abstract_rows(shape: RowShape, mesh: Mesh) -> PackedRows:
    """Packed rows of this shape, as ShapeDtypeStructs."""
    by_row, whole = NamedSharding(mesh, spec(None, "batch")), NamedSharding(mesh, PartitionSpec())

    def array(*rest: int, dtype=jnp.int32) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((shape.parts, shape.rows, *rest), dtype, sharding=by_row)

    L = shape.width
    tokens = array(L)
    layout = PackedLayout(tokens, tokens, tokens, array(L // shape.block, shape.reads))
    count = jax.ShapeDtypeStruct((), jnp.int32, sharding=whole)
    return PackedRows(count, tokens, layout, tokens, tokens, array(L, dtype=bool))


def distinct_prompts(config: ConfigDict) -> int:
    """The prompts of a step: one for each problem, or one for each rollout if personas differ."""
    each = 1 if prompts_are_shared(config) else config.rollout.group_size
    return config.train.problems_per_step * each


class Program(NamedTuple):
    """A program to trace; `trips` is how often its loops run whose length only the run knows."""

    trace: Callable[[], jax.stages.Traced]
    trips: float

    def flops(self) -> int:
        """FLOPs of all matmuls, on all chips together."""
        return matmul_flops(self.trace().jaxpr, self.trips)


def sampling_program(trace: Callable[[], jax.stages.Traced], new_tokens: int) -> Program:
    """The program of `sample`. Its loops over tokens say their length, those over blocks do not.

    Call it within `jax.set_mesh(mesh)`.
    """
    return Program(trace, older_blocks(new_tokens) or new_tokens)


def step_programs(
    config: ConfigDict, model: Decoder, mesh: Mesh
) -> tuple[Arguments, dict[str, Program]]:
    """The programs of a step, in its order: rollout, score (if there is a KL), update.

    Trace and compile them within `jax.set_mesh(mesh)`.
    """
    sampling = rollout_sampling(config)
    programs = grpo_programs(config, model, mesh)
    x = abstract_arguments(config, model, programs, mesh)
    parts = x.rows.tokens.shape[0]

    # (0,) stands for the end tokens: which ones they are changes no cost.
    rollout = partial(sample.trace, model, x.params, x.prompts, x.keys, sampling, (0,))
    steps = {"rollout": sampling_program(rollout, config.rollout.max_new_tokens)}
    if config.grpo.kl_weight:
        scorer = partial(score.trace, without_lora(model), x.reference, x.rows, scoring(config))
        steps["score"] = Program(scorer, parts)
    update = partial(programs.update.trace, x.state, x.rows, x.tokens, x.frozen, *x.rehearsal)
    return x, steps | {"update": Program(update, parts)}


def compile_programs(
    programs: Mapping[str, Program], topology: str, cache: Path
) -> dict[str, Compiled]:
    """What the compiler says of each program. One that does not fit is no error.

    Two are compiled at a time, the largest first. What is found is kept in the folder `cache`, so
    that the same program is compiled once. Raises ValueError, in one line, if the compiler cannot
    compile one. Call it within `jax.set_mesh(mesh)`.
    """
    # JAX caches a program for devices that are not there, and then fails to read it back.
    jax.config.update("jax_enable_compilation_cache", False)
    jobs = {name: _Job.of(name, program, topology) for name, program in programs.items()}
    with ThreadPoolExecutor(2) as pool:
        largest_first = sorted(jobs.values(), key=lambda job: -len(job.text))
        found = {job.name: pool.submit(job.compiled, cache) for job in largest_first}
        return {name: found[name].result() for name in programs}


class _Job(NamedTuple):
    """A program to compile. text: its StableHLO."""

    name: str
    topology: str
    flops: int
    trips: float
    text: str
    lowered: jax.stages.Lowered

    @classmethod
    def of(cls, name: str, program: Program, topology: str) -> "_Job":
        traced = program.trace()
        flops, lowered = matmul_flops(traced.jaxpr, program.trips), traced.lower()
        return cls(name, topology, flops, program.trips, lowered.as_text(), lowered)

    def compiled(self, cache: Path) -> Compiled:
        """As kept in `cache`, or else as the compiler says; see `compile_programs`."""
        kept = cache / "plans" / f"{_key(self)}.json"
        try:
            found = read_object(kept, "")
            costs = tuple(Cost(*cost) for cost in found.pop("costs"))
            return Compiled(self.flops, **found, costs=costs)
        except (OSError, ValueError, LookupError, TypeError):
            pass  # not kept, or damaged: it is made again
        begin = time.monotonic()
        try:
            result = _compiled(self)
        except jax.errors.JaxRuntimeError as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"{self.name} cannot be compiled for --topology={self.topology}: {reason}; try "
                "another mesh or another version of libtpu"
            ) from None
        _LOG.info("compiled %s in %.0f s", self.name, time.monotonic() - begin)
        record = result._asdict()
        del record["flops"]
        write_json(kept, record)
        return result


def _compiled(job: _Job) -> Compiled:
    """What the compiler says of a program. Raises JaxRuntimeError."""
    try:
        compiled = job.lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if (needs := needed_bytes(str(error))) is None:
            raise
        return Compiled(job.flops, needs)
    memory, once = compiled.memory_analysis(), compiled.cost_analysis()
    beside = memory.output_size_in_bytes - memory.alias_size_in_bytes
    temporaries = memory.temp_size_in_bytes + beside
    needs = memory.argument_size_in_bytes + temporaries
    costs = tuple(predict(compiled.as_text(), chip_of(job.topology), job.trips))
    return Compiled(job.flops, needs, temporaries, once["flops"], once["bytes accessed"], costs)


def _key(job: _Job) -> str:
    """A hash of all that decides what `_compiled` gives."""
    code = [Path(module.__file__).read_text("utf-8") for module in (hlo, prediction)]
    where = job.topology, chip_of(job.topology)
    all_of_it = [job.text, job.trips, *where, code, *compiler_versions()]
    return hashlib.sha256(json.dumps(all_of_it).encode()).hexdigest()[:32]


def compiler_versions() -> tuple[list[str], list[str]]:
    """The versions of the packages that compile, and the flags that the environment gives them."""
    versions = [_version(name) for name in ("jax", "jaxlib", "libtpu")]
    return versions, [os.environ.get(name, "") for name in ("LIBTPU_INIT_ARGS", "XLA_FLAGS")]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def needed_bytes(message: str) -> int | None:
    """Bytes a chip that a program needs, from XLA's error for lack of HBM; None: other errors."""
    match = re.search(r"\(([\d.]+)([KMGT])\) exceeds available HBM", message)
    return int(float(match[1]) * _UNITS[match[2]]) if match else None


def bytes_per_chip(tree) -> int:
    """Bytes of a pytree of ShapeDtypeStructs that one chip holds under their shardings."""
    return sum(
        prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree)
    )

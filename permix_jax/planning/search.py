"""Finds the mesh and the sizes with which a step takes the least time on a TPU slice.

A step is its programs one after the other, and each program reads only some of the fields
(`READS`). So every program is judged once for each value of the fields that it reads, and a setting
is the sum of its programs.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.validation import require_mesh_fits, require_valid
from permix_jax.core.fields import flat_fields
from permix_jax.core.files import read_object, write_json
from permix_jax.core.sharding import mesh_of
from permix_jax.core.tpus import GIB
from permix_jax.models.config import REMAT
from permix_jax.models.transformer import Decoder
from permix_jax.planning.chips import chip_of, topology_devices
from permix_jax.planning.compiled import (
    Arguments,
    Compiled,
    abstract_rows,
    compile_programs,
    compiler_versions,
    step_programs,
)
from permix_jax.planning.estimate import estimated_temporaries, traced_flops
from permix_jax.planning.plan import Plan, Use, decoder_of, use_of
from permix_jax.planning.prediction import Cost
from permix_jax.train.base import code_digest
from permix_jax.train.programs import rollouts_per_step, step_shapes

_MESH = ("mesh.data", "mesh.fsdp", "mesh.tensor")
_PARTS, _TOKENS = "rollout.micro_batches", "train.micro_batch_tokens"
_REMAT, _CHUNK = "model.remat", "model.head_chunk"
FIELDS = (*_MESH, _PARTS, _TOKENS, _REMAT, _CHUNK)
# The fields that decide what each program of a step costs.
READS = {
    "rollout": (*_MESH, _PARTS),
    "score": (*_MESH, _TOKENS, _CHUNK),
    "update": (*_MESH, _TOKENS, _REMAT, _CHUNK),
}
COMPILED = 4  # how many settings are compiled, by default

Fields = dict[str, int | str]


class Candidate(NamedTuple):
    """A setting of FIELDS. `plan` is of the step alone; `moved`: how many of the fields differ from
    the config's own."""

    fields: Fields
    plan: Plan
    compiled: bool
    moved: int

    def seconds(self) -> float:
        """Of a step: as predicted, or at least."""
        return self.plan.predicted() or self.plan.seconds()

    def peak(self) -> float:
        """Bytes a chip of the program that needs most."""
        return max(use.peak() for use in self.plan.programs.values())

    def missing(self) -> tuple[str, float]:
        """The program that needs most, and the bytes a chip that it needs too much."""
        programs = self.plan.programs
        name = max(programs, key=lambda name: programs[name].peak())
        return name, programs[name].peak() - self.plan.chip.hbm

    def mesh(self) -> tuple:
        return tuple(self.fields[name] for name in _MESH)


class Found(NamedTuple):
    """What a search found on a topology: compiled settings, the best first; the best of the rest,
    by their bounds; and how many settings were tried."""

    topology: str
    compiled: list[Candidate]
    traced: list[Candidate]
    tried: int

    def best(self) -> Candidate:
        return self.compiled[0]


class NothingFits(ValueError):
    """No setting of FIELDS fits the topology."""


def search(config: ConfigDict, topology: str, cache: Path, number: int = COMPILED) -> Found:
    """The settings of FIELDS for a topology, of which about `number` are compiled.

    All are traced. The config's own setting and the best of each mesh are compiled, in the order of
    their bounds; then the other values of model.head_chunk of the best, which no bound sees.

    Raises NothingFits, with the nearest setting and what it misses; and as `make_plan`.
    """
    judge = _Judge(config, topology, cache)
    traced = sorted(judge.traced(), key=_order)
    waiting = [x for x in traced if x.plan.fits()]
    done: list[Candidate] = []
    while waiting and not _enough(done, number):
        chosen = min(waiting, key=partial(_turn, done=_fitting(done)))
        done.append(judge.compiled(chosen))
        waiting = [x for x in waiting if x is not chosen and not _as_large(x, chosen, done[-1])]
    if not _fitting(done):
        raise NothingFits(_nearest(min(done or traced, key=lambda x: x.peak()), topology))
    best = min(_fitting(done), key=Candidate.seconds)
    others = [x for x in waiting if _same_but_chunk(x, best)]
    done += [judge.compiled(x) for x in others]
    rest = [x for x in waiting if x not in others]
    done.sort(key=lambda x: (not x.plan.fits(), x.seconds()))
    return Found(topology, done, rest, len(traced))


def _enough(done: list[Candidate], number: int) -> bool:
    """Whether `number` compiled settings fit, or one does after twice as many attempts."""
    fitting = len(_fitting(done))
    return fitting >= number or (fitting > 0 and len(done) >= 2 * number)


def _turn(x: Candidate, done: list[Candidate]) -> tuple:
    """The lower, the sooner x is compiled: the config's own setting, then one of each mesh. Other
    values of head_chunk alone come last. `done`: what was compiled and fits."""
    tried = sum(x.mesh() == y.mesh() for y in done)
    return x.moved > 0, tried, any(_same_but_chunk(x, y) for y in done), *_order(x)


def _fitting(candidates: list[Candidate]) -> list[Candidate]:
    return [x for x in candidates if x.plan.fits()]


def _order(x: Candidate) -> tuple:
    """The lower the better: by the bound, then by how little is changed, then by memory."""
    return not x.plan.fits(), x.plan.seconds(), x.moved, x.peak()


def _as_large(x: Candidate, traced: Candidate, compiled: Candidate) -> bool:
    """Whether x cannot fit, as a compiled candidate with no larger estimate does not."""
    if x.mesh() != traced.mesh():
        return False
    return any(
        not use.fits(compiled.plan.chip)
        and x.plan.programs[name].peak() >= traced.plan.programs[name].peak()
        for name, use in compiled.plan.programs.items()
    )


def _same_but_chunk(x: Candidate, best: Candidate) -> bool:
    return all(x.fields[name] == best.fields[name] for name in FIELDS if name != _CHUNK)


def _nearest(x: Candidate, topology: str) -> str:
    name, missing = x.missing()
    how = "as compiled" if x.compiled else "as estimated"
    return (
        f"--topology={topology} fits no setting of the search; nearest is {setting(x.fields)}, "
        f"whose {name} needs {missing / GIB:.2f} GiB a chip more than {x.plan.chip.hbm / GIB:.2f}, "
        f"{how}; take more chips, set lora.rank = 16, or make the batch or its answers smaller"
    )


def setting(fields: Fields) -> str:
    """The fields as flags of a command."""
    return " ".join(f"--config.{name}={value}" for name, value in fields.items())


def meshes(chips: int) -> Iterator[tuple[int, int, int]]:
    """All (data, fsdp, tensor) of so many chips."""
    divisors = [n for n in range(1, chips + 1) if chips % n == 0]
    for data, fsdp in product(divisors, divisors):
        if chips % (data * fsdp) == 0:
            yield data, fsdp, chips // (data * fsdp)


def search_slices(
    config: ConfigDict, topologies: Sequence[str], cache: Path, number: int = COMPILED
) -> tuple[list[Found], dict[str, str]]:
    """`search` on each topology, and why nothing fits the others.

    Raises as `search`, NothingFits only where nothing fits any of them.
    """
    found, refused = [], {}
    for topology in topologies:
        try:
            found.append(search(config, topology, cache, number))
        except NothingFits as error:
            refused[topology] = str(error)
    if not found:
        raise NothingFits(next(iter(refused.values())))
    return found, refused


class _Judge:
    """Traces, estimates and compiles the programs of settings on one topology."""

    def __init__(self, config: ConfigDict, topology: str, cache: Path):
        self.config, self.topology, self.cache = config, topology, cache
        self.own = flat_fields(config.to_dict())
        self.chip, self.devices = chip_of(topology), topology_devices(topology)
        self.model = decoder_of(config, cache, mesh_of((len(self.devices), 1, 1), self.devices))
        self.reference: Fields = {}  # a mesh that suits the run, and one part: what is traced
        self._known: dict[tuple, object] = {}
        self._code = code_digest(["."])  # any file may change a program

    def traced(self) -> list[Candidate]:
        """All valid settings. Raises NothingFits where no mesh suits the run."""
        found, refused = [], []
        parts, *others = self._values()
        for mesh, number in product(meshes(len(self.devices)), parts):
            first = dict(zip((*_MESH, _PARTS), (*mesh, number), strict=True))
            config = self._with(first)
            try:
                require_valid(config)
                require_mesh_fits(self.model.config, config)
            except ValueError as error:
                refused.append(str(error))
                continue
            self.reference = self.reference or first | {_PARTS: 1}
            for values in product(*others):
                fields = first | dict(zip((_TOKENS, _REMAT, _CHUNK), values, strict=True))
                uses = {name: self._traced(name, fields) for name in self._programs()}
                found.append(self._candidate(fields, uses, compiled=False))
        if not found:
            chips = len(self.devices)
            raise NothingFits(
                f"--topology={self.topology} has {chips} chips, and no mesh of {chips} suits the "
                f"run: {refused[0]}"
            )
        return found

    def compiled(self, traced: Candidate) -> Candidate:
        """The same setting with what the compiler says."""
        waiting = {name: self._of(name, traced.fields) for name in self._programs()}
        keys = {name: self._key("compiled", name, own) for name, own in waiting.items()}
        records = {name: self._kept(key) for name, key in keys.items()}
        missing = {name: waiting[name] for name, record in records.items() if record is None}
        for name, found in self._compile(missing).items():
            records[name] = found._asdict()
            write_json(self._file(keys[name]), records[name])
        uses = {}
        for name, record in records.items():
            costs = tuple(Cost(*cost) for cost in record["costs"])
            uses[name] = self._use(name, waiting[name], Compiled(**record | {"costs": costs}))
        return self._candidate(traced.fields, uses, compiled=True)

    def _programs(self) -> list[str]:
        return [name for name in READS if name != "score" or self.config.grpo.kl_weight]

    def _values(self) -> list[list]:
        """The values of all fields but the mesh's. Of whole numbers those near the config's own."""
        c = self.config
        least = c.rollout.max_prompt_tokens + c.rollout.max_new_tokens
        parts = [n for n in (1, 2, 4, 8) if c.train.problems_per_step % n == 0]
        parts = sorted({*parts, c.rollout.micro_batches})
        own = c.train.micro_batch_tokens
        tokens = sorted({max(n, min(least, own)) for n in (own // 2, own, own * 2)})
        chunks = [max(1, c.model.head_chunk // 4), c.model.head_chunk, c.model.head_chunk * 4]
        return [parts, tokens, list(REMAT), chunks]

    def _with(self, fields: Fields) -> ConfigDict:
        config = self.config.copy_and_resolve_references()
        config.update_from_flattened_dict(fields)
        return config

    def _of(self, name: str, fields: Fields) -> ConfigDict:
        """The config with the fields alone that the program reads; others are the run's own."""
        return self._with({field: fields[field] for field in READS[name]})

    def _candidate(self, fields: Fields, uses: dict[str, Use], compiled: bool) -> Candidate:
        plan = Plan(self.topology, self.chip, len(self.devices), uses)
        moved = sum(self.own[field] != value for field, value in fields.items())
        return Candidate(fields, plan, compiled, moved)

    def _once(self, key: tuple, make: Callable):
        if key not in self._known:
            self._known[key] = make()
        return self._known[key]

    def _traced(self, name: str, fields: Fields) -> Use:
        key = name, *(fields[field] for field in READS[name])
        return self._once(key, lambda: self._estimated(name, self._of(name, fields)))

    def _estimated(self, name: str, config: ConfigDict) -> Use:
        arguments, model = self._arguments(config), self._decoder(config)
        needs = estimated_temporaries(name, arguments, model.config, config)
        return self._use(name, config, Compiled(self._flops(name, config), 0, needs))

    def _use(self, name: str, config: ConfigDict, found: Compiled) -> Use:
        model = self._decoder(config).config
        return use_of(name, found, self._arguments(config), model, config)

    def _flops(self, name: str, config: ConfigDict) -> int:
        """Of the program. Its matmuls grow with its rows or tokens alone, so one mesh is traced."""
        reads = {_REMAT: config.model.remat} if name == "update" else {}
        reference = self._with(self.reference | reads)
        whole = self._whole_flops(name, reference)
        if name == "rollout":  # a part has its share of the rows
            return whole // config.rollout.micro_batches
        return whole * _packed_tokens(config) // _packed_tokens(reference)

    def _whole_flops(self, name: str, config: ConfigDict) -> int:
        key = self._key("traced", name, config)

        def make() -> int:
            if record := self._kept(key):
                return record["flops"]
            mesh = self._mesh(config)
            with jax.set_mesh(mesh):
                flops = traced_flops(config, self._decoder(config), mesh, name)
            write_json(self._file(key), {"flops": flops})
            return flops

        return self._once(("flops", key), make)

    def _compile(self, configs: dict[str, ConfigDict]) -> dict[str, Compiled]:
        """Compiles programs, each of its own config; all have one mesh."""
        if not configs:
            return {}
        mesh = self._mesh(next(iter(configs.values())))
        with jax.set_mesh(mesh):
            programs = {
                name: step_programs(config, self._decoder(config), mesh)[1][name]
                for name, config in configs.items()
            }
            return compile_programs(programs, self.topology, self.cache)

    def _mesh(self, config: ConfigDict) -> Mesh:
        m = config.mesh
        shape = m.data, m.fsdp, m.tensor
        return self._once(("mesh", shape), lambda: mesh_of(shape, self.devices))

    def _decoder(self, config: ConfigDict) -> Decoder:
        return Decoder(replace(self.model.config, remat=config.model.remat))

    def _arguments(self, config: ConfigDict) -> Arguments:
        """With the rows of this config; all else depends on the mesh and the parts alone."""
        mesh, parts = self._mesh(config), config.rollout.micro_batches

        def make() -> Arguments:
            with jax.set_mesh(mesh):
                return step_programs(config, self.model, mesh)[0]

        arguments = self._once(("arguments", *mesh.shape.values()), make)
        keys = arguments.keys.update(shape=(rollouts_per_step(config) // parts,))
        return arguments._replace(keys=keys, rows=abstract_rows(step_shapes(config)[-1], mesh))

    def _key(self, what: str, name: str, config: ConfigDict) -> str:
        """A hash of all that decides what is kept under it."""
        platform = self.devices[0].platform
        where = self.topology if what == "compiled" else platform
        model = str(self._decoder(config).config)
        versions = compiler_versions()
        all_of_it = [what, name, config.to_json(), where, self.chip, model, self._code, versions]
        return hashlib.sha256(json.dumps(all_of_it).encode()).hexdigest()[:32]

    def _file(self, key: str) -> Path:
        return self.cache / "plans" / f"search-{key}.json"

    def _kept(self, key: str) -> dict | None:
        try:
            return read_object(self._file(key), "")
        except (OSError, ValueError):
            return None  # not kept, or damaged: it is made again


def _packed_tokens(config: ConfigDict) -> int:
    """Tokens that scoring and update compute, padding included."""
    shape = step_shapes(config)[-1]
    return shape.parts * shape.rows * shape.width

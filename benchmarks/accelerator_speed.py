"""Part 3 of benchmarks/accelerator.py: scoring, update and rollout beside what the device can do.

Models have random weights in the shapes of Qwen3-0.6B and SmolLM2-135M, matmuls in bf16. A rollout
has 8 rows to a prompt of 128 tokens, and none ends early. Its bytes are those of `decode_bytes`.
Scoring and update have 8 problems x 8 completions of the preset qwen3_0_6b, at full length.
"""

import runpy
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_device import Peak, device_memory, known_peak
from accelerator_record import Given, Tell, said
from accelerator_values import ROOT
from limits import Machine, best_seconds, least_seconds
from ml_collections import ConfigDict
from settings import SMOLLM2, TINY, Setting

from permix_jax.core.keys import key
from permix_jax.core.sharding import make_mesh, shard_packed
from permix_jax.core.tpus import GIB
from permix_jax.formats.huggingface import config_from_hf
from permix_jax.formats.published import CONFIGS
from permix_jax.models.logprobs import score
from permix_jax.models.packing import Packing
from permix_jax.models.params import create_params
from permix_jax.models.transformer import Decoder
from permix_jax.rollout.sampler import Completions, sample
from permix_jax.rollout.sampling import Sampling
from permix_jax.train.batch import RolloutBatch, loss_tokens
from permix_jax.train.loss import LossTokens
from permix_jax.train.measures import model_flops, trained_passes
from permix_jax.train.programs import (
    grpo_programs,
    loss_config,
    pack_step,
    pack_tokens,
    scoring,
    step_shapes,
)
from permix_jax.train.state import create_state

MODELS = {"qwen3_0_6b": CONFIGS["Qwen/Qwen3-0.6B"], "smollm2_135m": SMOLLM2}
# (rows, tokens), in this order: the goal's first, the slowest last.
ROLLOUTS = ((256, 128), (64, 128), (1024, 128), (256, 1024), (64, 1024), (1024, 1024))
_SAMPLES, _PROMPT = 8, 128
_NO_END = (-1,)
_REPEATS = 3
_ROOMY = 40 * GIB  # of memory, with which an update needs to compute nothing twice


class Device(NamedTuple):
    peak: Peak
    reached: Machine
    memory: int | None  # bytes


def measure(given: Given, tell: Tell) -> None:
    """Tells of scoring, update and rollouts of each model, as long as there is time."""
    models = {"tiny": TINY} if given.tiny else MODELS
    rollouts = ((16, 4),) if given.tiny else ROLLOUTS
    device, left_out = Device(*known_peak(given.tiny), device_memory()), []
    mesh = make_mesh(1, 1, 1)
    with jax.set_mesh(mesh):
        longest = 0.0  # seconds that one of them took
        for name, what, function in _all_of(models, rollouts, given.tiny):
            begin = time.monotonic()
            if given.left() < longest:
                left_out.append(f"{name}, {what}")
                continue
            try:
                figures = function(device)
            except Exception as error:  # such as too little memory, which others may have
                figures = {"not_measured": said(error)}
            tell(f"{name}, {what}", figures)
            longest = max(longest, time.monotonic() - begin)
    if left_out:
        tell("no time was left for", {"these": left_out})


def _all_of(models: dict, rollouts: tuple, tiny: bool) -> Iterator[tuple[str, str, Callable]]:
    """(model, what is measured, function of the device that measures it)."""
    for name, shape in models.items():
        work = Work(shape, tiny)
        yield name, "scoring", work.scoring
        yield name, "update", work.update
        for rows, tokens in rollouts:
            setting = Setting(shape, rows // _SAMPLES, _SAMPLES, 16 if tiny else _PROMPT, tokens)
            yield name, f"rollout of {rows} x {tokens}", partial(rollout, setting)


class Work:
    """Scoring and update of a model on a batch of full length."""

    def __init__(self, shape: dict, tiny: bool):
        self.config, self.shape = step_config(tiny), shape
        self.mesh = make_mesh(1, 1, 1)

    def model(self, memory: int | None) -> Decoder:
        remat = "none" if (memory or 0) >= _ROOMY else self.config.model.remat
        return decoder(self.shape, remat)

    def scoring(self, device: Device) -> dict[str, Any]:
        model = self.model(device.memory)
        params = create_params(model, key(0, "model"), self.mesh)
        _, packing = batch_of(self.config, model)
        args = model, params, shard_packed(packing.rows, self.mesh), scoring(self.config)
        program = Program(score, args, static=(0, 3))
        seconds = best_seconds(program.run, *program.arrays, tries=_REPEATS)
        return program.figures(seconds) | self._shares(packing, model, 1, seconds, device)

    def update(self, device: Device) -> dict[str, Any]:
        model = self.model(device.memory)
        programs = grpo_programs(self.config, model, self.mesh)
        params = create_params(model, key(0, "model"), self.mesh)
        state = create_state(params, programs.optimizer, programs.abstract)
        del params
        batch, packing = batch_of(self.config, model)
        tokens = shard_packed(_tokens(batch, packing, self.config), self.mesh)
        rows = shard_packed(packing.rows, self.mesh)
        program = Program(programs.update, (state, rows, tokens, {}))
        seconds = []
        for _ in range(1 + _REPEATS):  # the first is left out
            begin = time.perf_counter()
            state, _ = jax.block_until_ready(program.run(state, rows, tokens, {}))
            seconds.append(time.perf_counter() - begin)
        passes, best = trained_passes(model.config), min(seconds[1:])
        return program.figures(best) | self._shares(packing, model, passes, best, device)

    def _shares(
        self, packing: Packing, model: Decoder, passes: int, seconds: float, device: Device
    ) -> dict[str, Any]:
        flops = passes * model_flops(model.config, packing.rows) / seconds
        real = packing.rows.layout.sequence >= 0
        return {
            "tokens_per_second": float(np.sum(real)) / seconds,
            "mfu": flops / device.peak.flops,
            "of_measured_matmul": flops / device.reached.flops,
            "remat": model.config.remat,
        }


def rollout(setting: Setting, device: Device) -> dict[str, Any]:
    """A rollout whose rows all run to the limit; its share of the peak bandwidth, and of the speed
    that bandwidth and matmuls allow at what was measured."""
    model, needed = decoder(setting.shape), rollout_bytes(setting)
    if device.memory and needed > device.memory:
        most = f"{needed / GIB:.0f} GiB of {device.memory / GIB:.0f}"
        return {"not_measured": f"too little memory: weights, keys and values take {most}"}
    mesh, rows = make_mesh(1, 1, 1), setting.prompts * setting.samples
    params = create_params(model, key(0, "model"), mesh)
    shape = setting.prompts, setting.prompt_tokens
    tokens = jax.random.randint(key(0, "prompts"), shape, 0, setting.shape["vocab_size"])
    prompts, keys = (tokens, jnp.ones(shape, bool)), jax.random.split(key(0, "rows"), rows)
    args = model, params, prompts, keys, Sampling(setting.limit), _NO_END
    program = Program(sample, args, static=(0, 4, 5))
    seconds = best_seconds(_Ready(program.run), *program.arrays, tries=_REPEATS)
    least = least_seconds(setting, device.reached, itemsize=2)["rollout"]
    bandwidth = decode_bytes(setting) / seconds
    return program.figures(seconds) | {
        "tokens_per_second": rows * setting.limit / seconds,
        "of_bandwidth": bandwidth / device.peak.bandwidth,
        "of_limit": least / seconds,
    }


def decode_bytes(setting: Setting) -> float:
    """What decoding reads: `least_seconds` of a machine that reads one byte a second."""
    return least_seconds(setting, Machine(float("inf"), 1.0), itemsize=2)["rollout"]


def rollout_bytes(setting: Setting) -> float:
    """Weights in f32 and in bf16, and keys and values of all tokens at the end."""
    model = decoder(setting.shape)
    weights = sum(x.size for x in jax.tree.leaves(_shapes(model)))
    c, rows = model.config, setting.prompts * setting.samples
    tokens = setting.prompts * setting.prompt_tokens + rows * setting.limit
    return 6 * weights + tokens * c.num_layers * 4 * c.num_kv_heads * c.head_dim


# ---- what is measured ---------------------------------------------------------------------------


class Program:
    """A jitted function, compiled twice: anew, and from the compilation cache.

    static: which arguments are. arrays: the others, with which `run` is called.
    """

    def __init__(self, jitted: Callable, args: tuple, static: tuple[int, ...] = ()):
        self.arrays = tuple(x for i, x in enumerate(args) if i not in static)
        self._seconds = []
        for _ in range(2):
            begin = time.monotonic()
            self.run = jitted.lower(*args).compile()
            self._seconds.append(time.monotonic() - begin)
            jax.clear_caches()

    def figures(self, seconds: float) -> dict[str, Any]:
        """With GiB at the peak: arguments, results and what lies between, where XLA tells it."""
        gib = None
        if m := self.run.memory_analysis():
            held = m.argument_size_in_bytes + m.output_size_in_bytes - m.alias_size_in_bytes
            gib = (held + m.temp_size_in_bytes) / GIB
        cold, cached = self._seconds
        return {"seconds": seconds, "gib": gib, "compile_seconds": cold, "cached_seconds": cached}


class _Ready:
    """A function of many results as `best_seconds` wants it: with one that can be waited for."""

    def __init__(self, function: Callable):
        self._function = function

    def __call__(self, *args) -> jax.Array:
        return self._function(*args).tokens


def step_config(tiny: bool) -> ConfigDict:
    """The preset qwen3_0_6b with 8 problems a step, on one device."""
    config = runpy.run_path(str(ROOT / "configs/permix.py"))["get_config"]("qwen3_0_6b")
    config.mesh.tensor, config.train.problems_per_step = 1, 8
    if tiny:
        config.train.problems_per_step, config.rollout.group_size = 2, 2
        config.rollout.max_prompt_tokens, config.rollout.max_new_tokens = 16, 8
    return config


def decoder(shape: dict, remat: str = "none") -> Decoder:
    """In bf16, with parameters in f32, as presets have it."""
    return Decoder(replace(config_from_hf(shape), dtype="bfloat16", remat=remat))


def batch_of(config: ConfigDict, model: Decoder) -> tuple[RolloutBatch, Packing]:
    """A graded step at full length, of random tokens; half of each problem's rollouts are right."""
    c, rng = config, np.random.default_rng(0)
    U, S = c.train.problems_per_step, c.rollout.group_size
    P, T, N = c.rollout.max_prompt_tokens, c.rollout.max_new_tokens, U * S

    def drawn(*shape: int) -> tuple[np.ndarray, np.ndarray]:
        tokens = rng.integers(0, model.config.vocab_size, shape, np.int32)
        return tokens, np.ones(shape, bool)

    tokens, mask = drawn(N, T)
    logprobs = np.full((N, T), -np.log(model.config.vocab_size), np.float32)
    problem = np.repeat(np.arange(U, dtype=np.int32), S)
    batch = RolloutBatch(
        drawn(U, P),
        Completions(tokens, mask, logprobs, np.ones(N, bool)),
        problem,
        np.full(N, -1, np.int32),
        problem,
        np.tile(np.float32([0, 1]), N // 2),
        np.tile(np.float32([-1, 1]), N // 2),
    )
    return batch, pack_step(batch, step_shapes(config))


def _tokens(batch: RolloutBatch, packing: Packing, config: ConfigDict) -> LossTokens:
    tokens = loss_tokens(batch, loss_config(config))
    tokens = tokens._replace(reference=tokens.behaviour)
    return pack_tokens(tokens, batch.completions.mask, packing)


def _shapes(model: Decoder):
    return jax.eval_shape(lambda: create_params(model, jax.random.key(0), make_mesh(1, 1, 1)))

"""The programs of a run beside those of a step: SFT of the base, evaluation, KL, likelihoods."""

from dataclasses import replace
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.build import eval_settings
from permix_jax.core.sharding import row_shards
from permix_jax.models.lm_head import Scoring
from permix_jax.models.logprobs import score
from permix_jax.models.packing import row_shapes
from permix_jax.models.params import without_lora
from permix_jax.models.transformer import Decoder
from permix_jax.planning.compiled import (
    Arguments,
    Program,
    abstract_keys,
    abstract_prompts,
    abstract_rows,
    sampling_program,
)
from permix_jax.rollout.generate import prompts_per_batch
from permix_jax.rollout.sampler import sample
from permix_jax.train.gradients import cross_entropy, packed_gradients
from permix_jax.train.programs import batch_shapes
from permix_jax.train.state import make_programs
from permix_jax.train.supervised import SftTokens


class Phase(NamedTuple):
    """What a phase runs on one batch after another.

    given: of its arguments what stays on the chip, a pytree of ShapeDtypeStructs. beside: whether
    the training's state and reference stay there, too.
    """

    program: Program
    given: object
    beside: bool = False


def phase_programs(
    config: ConfigDict, model: Decoder, mesh: Mesh, arguments: Arguments
) -> dict[str, Phase]:
    """The phases that the config asks for, by a name that says how large a batch is.

    Every prompt and completion has full length. An evaluation is taken to have the batches of
    `eval.batch_size`, though a small one has fewer answers. The KL samples as an evaluation does;
    what is planned of it is the base's scoring. Trace them within `jax.set_mesh(mesh)`.
    """
    e, evaluation = config.eval, eval_settings(config)
    base = without_lora(model), arguments.base
    found = _sft(config, model, mesh) if config.sft.steps else {}

    prompts = prompts_per_batch(e.batch_size, e.samples, mesh)
    number = prompts * e.samples
    sampling = evaluation.sampling
    asked = abstract_prompts(prompts, config, mesh), abstract_keys(number, mesh)
    answer = partial(sample.trace, model, arguments.params, *asked, sampling, (0,))
    program = sampling_program(answer, sampling.max_new_tokens)
    found[f"evaluation of {number}"] = Phase(program, arguments.params, bool(e.every))

    if e.kl_responses:
        size, r = min(e.batch_size, e.kl_responses), config.rollout
        found[f"KL of {size}"] = _scoring(
            base, config, mesh, (size, r.max_new_tokens), r.temperature
        )
    if e.judge_free_candidates and not e.judge_free_reference:
        answers = e.batch_size, sampling.max_new_tokens
        found[f"likelihoods of {e.batch_size}"] = _scoring(base, config, mesh, answers, 1.0)
    return found


def _sft(config: ConfigDict, model: Decoder, mesh: Mesh) -> dict[str, Phase]:
    """A step of the base's SFT: it trains all weights, in `model.param_dtype`."""
    s = config.sft
    whole = Decoder(replace(model.config, lora=None, param_dtype=config.model.param_dtype))
    loss = packed_gradients, whole, cross_entropy, Scoring(1.0, config.model.head_chunk)
    programs = make_programs(s, s.steps, whole, mesh, partial(*loss))
    rows = abstract_rows(batch_shapes(config, s.batch_size, s.max_new_tokens)[-1], mesh)
    tokens = SftTokens(rows.targets.update(dtype=jnp.float32))
    update = partial(programs.update.trace, programs.abstract, rows, tokens, {})
    program = Program(update, rows.tokens.shape[0])
    return {f"SFT of {s.batch_size}": Phase(program, programs.abstract)}


def _scoring(
    base: tuple, config: ConfigDict, mesh: Mesh, completions: tuple[int, int], temperature: float
) -> Phase:
    """The log-probs of completions (how many, of how many tokens), each with its own prompt.

    base: model and parameters.
    """
    (model, params), (number, length), shards = base, completions, row_shards(mesh)
    number = -(-number // shards) * shards
    limits = (number, config.rollout.max_prompt_tokens), (number, length)
    shapes = row_shapes(*limits, shards, config.train.micro_batch_tokens)
    rows = abstract_rows(shapes[-1], mesh)
    scoring = Scoring(temperature, config.model.head_chunk)
    trace = partial(score.trace, model, params, rows, scoring)
    return Phase(Program(trace, rows.tokens.shape[0]), params)

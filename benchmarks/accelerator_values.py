"""What a model computes of a few texts: log-probs and one GRPO gradient, to compare devices by."""

import runpy
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.sharding import Mesh
from ml_collections import ConfigDict

from permix_jax.app.build import build_task
from permix_jax.app.workdir import cache_folder
from permix_jax.core.sharding import shard_packed, to_host
from permix_jax.models.logprobs import prefill, score
from permix_jax.models.packing import Packing, Ragged, pack, row_shapes
from permix_jax.models.policy import Policy
from permix_jax.models.transformer import Decoder
from permix_jax.personas.prompts import render_all
from permix_jax.rollout.generate import right_pad
from permix_jax.train.loss import LossTokens
from permix_jax.train.programs import policy_gradients, scoring

ROOT = Path(__file__).parents[1]
FILE = "parity.npz"
_PROMPTS, _ENTRIES = 4, 64  # entries of each parameter's gradient that are compared
# Toy sizes, for a tokenizer that may have a token for every letter.
_TINY = {
    "task.num_test": 2,
    "train.problems_per_step": 2,
    "train.micro_batch_tokens": 2048,
    "rollout.group_size": 2,
    "rollout.max_prompt_tokens": 512,
    "rollout.max_new_tokens": 4,
    "eval.personas": 2,
    "eval.batch_size": 8,
    "eval.kl_responses": 0,
}


def arithmetic_config(weights: Path | str, tiny: bool, **fields) -> ConfigDict:
    """The preset smollm2_arithmetic on the model of a folder; `fields` have __ for dots."""
    config = runpy.run_path(str(ROOT / "configs/permix.py"))["get_config"]("smollm2_arithmetic")
    changes = {"model.source": str(weights), **(_TINY if tiny else {})}
    changes |= {name.replace("__", "."): value for name, value in fields.items()}
    config.update_from_flattened_dict(changes)
    return config


class Texts(NamedTuple):
    """Prompts, two completions of each, and what a GRPO loss knows of these.

    prompts, completions: `Ragged` ones. advantages: f32 [completions]. behaviour, reference: f32
    [all tokens of completions], log-probs that were made up near the model's own.
    """

    prompts: Ragged
    completions: Ragged
    advantages: np.ndarray
    behaviour: np.ndarray
    reference: np.ndarray


def make_texts(config: ConfigDict, policy: Policy) -> Texts:
    """Problems of the config's task under held-out personas, with a right and a wrong answer."""
    task = build_task(config, cache_folder())
    personas = [None, *(p for p in task.personas if p.split == "heldout")][:_PROMPTS]
    problems = task.train[:_PROMPTS]
    asked = [(who, one.prompt) for who, one in zip(personas, problems, strict=True)]
    said = [text for one in problems for text in (one.meta["solution"], "I would rather not say.")]
    ids = policy.tokenizer(said, add_special_tokens=False)["input_ids"]
    completions = Ragged.of([[*tokens, policy.end_tokens[0]] for tokens in ids])
    advantages = np.tile(np.float32([1, -1]), len(problems))
    none = np.zeros(len(completions.values), np.float32)
    prompts = Ragged.of(render_all(policy.tokenizer, asked))
    return Texts(prompts, completions, advantages, none, none)


def with_old_logprobs(texts: Texts, logprobs: np.ndarray) -> Texts:
    """The texts, sampled by a policy near the one with these log-probs f32 [tokens].

    Ratios are 0.95 to 1.05, within any clip, also where a dtype rounds.
    """
    wave = np.sin(np.arange(len(logprobs), dtype=np.float32))
    behaviour, reference = logprobs - np.float32(0.05) * wave, logprobs + np.float32(0.2) * wave
    return texts._replace(behaviour=behaviour, reference=reference)


def compute(
    config: ConfigDict, model: Decoder, params: dict, texts: Texts, mesh: Mesh
) -> dict[str, np.ndarray]:
    """What the model computes of the texts, f32 arrays:

    logits [prompts, V], of the token after each prompt. logprobs [tokens], of the completions.
    gradient [parameters, 1 + entries]: of GRPO's loss by each parameter, its norm and some entries.
    """
    packing = _packed(texts)
    rows = shard_packed(packing.rows, mesh)
    tokens = shard_packed(_loss_tokens(texts, packing), mesh)
    gradients, _ = jax.jit(policy_gradients(config, model))(params, rows, tokens, {})
    lists = np.split(texts.prompts.values, np.cumsum(texts.prompts.lengths)[:-1])
    prompts = right_pad(lists, int(texts.prompts.lengths.max()))
    return {
        "logits": to_host(jax.jit(_next_logits, static_argnums=0)(model, params, *prompts)),
        "logprobs": logprobs_of(config, model, params, texts, mesh),
        "gradient": np.stack([_summary(x) for _, x in sorted(flatten_dict(gradients).items())]),
    }


def logprobs_of(
    config: ConfigDict, model: Decoder, params: dict, texts: Texts, mesh: Mesh
) -> np.ndarray:
    """Of the tokens of the completions, f32 [tokens]."""
    packing = _packed(texts)
    rows = shard_packed(packing.rows, mesh)
    return packing.collect(to_host(score(model, params, rows, scoring(config))))


def distances(found: Mapping[str, np.ndarray], saved: Mapping[str, np.ndarray]) -> dict[str, float]:
    """|found - saved| / |saved| of each array, in Euclidean norms; "worst": the parameter whose
    gradient is furthest off."""
    names = ("logits", "logprobs", "gradient")
    whole = {name: _relative(found[name], saved[name]) for name in names}
    pairs = zip(found["gradient"], saved["gradient"], strict=True)
    return whole | {"worst": max(_relative(x, y) for x, y in pairs)}


def save(path: Path, texts: Texts, arrays: Mapping[str, np.ndarray]) -> None:
    flat = {}
    for name, value in texts._asdict().items():
        parts = value._asdict() if isinstance(value, Ragged) else {"": value}
        flat |= {f"texts/{name}/{part}": x for part, x in parts.items()}
    np.savez_compressed(path, **flat, **arrays)


def load(path: Path) -> tuple[Texts, dict[str, np.ndarray]]:
    """What `save` wrote; ValueError for a damaged file."""
    try:
        with np.load(path) as file:
            arrays = dict(file)
    except Exception as error:  # NumPy raises what zipfile and its own reader do
        raise ValueError(f"{path}: damaged ({error}); make the folder again") from None
    fields = {}
    for name in Texts._fields:
        parts = {key: arrays.pop(key) for key in list(arrays) if key.startswith(f"texts/{name}/")}
        fields[name] = next(iter(parts.values())) if len(parts) == 1 else Ragged(*parts.values())
    return Texts(**fields), arrays


def _relative(found: np.ndarray, saved: np.ndarray) -> float:
    found, saved = np.asarray(found, np.float64), np.asarray(saved, np.float64)
    return float(np.linalg.norm(found - saved) / max(np.linalg.norm(saved), 1e-30))


def _packed(texts: Texts) -> Packing:
    most = [(len(x.lengths), int(x.lengths.max())) for x in (texts.prompts, texts.completions)]
    owners = np.repeat(np.arange(most[0][0]), most[1][0] // most[0][0])
    return pack(texts.prompts, texts.completions, owners, row_shapes(*most, 1, 4096))


def _loss_tokens(texts: Texts, packing: Packing) -> LossTokens:
    """A mean over all tokens."""
    number = len(texts.completions.values)
    equal = np.full(number, 1 / number, np.float32)
    advantages = np.repeat(texts.advantages, texts.completions.lengths)
    known = (texts.behaviour, advantages, equal, equal)
    return LossTokens(*map(packing.spread, known), reference=packing.spread(texts.reference))


def _next_logits(model: Decoder, params, tokens, mask) -> jax.Array:
    hidden, *_ = prefill(model, params, tokens, mask)
    return model.apply({"params": params}, hidden, method="unembed")


def _summary(gradient: jax.Array) -> np.ndarray:
    """f32 [1 + entries]: the norm, and entries at equal distances."""
    flat = np.asarray(to_host(gradient), np.float32).ravel()
    entries = flat[np.linspace(0, len(flat) - 1, _ENTRIES).astype(int)]
    return np.float32([np.linalg.norm(flat), *entries])

"""The functions that make the method: give your own for any of them, and nothing else changes."""

import hashlib
import inspect
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from permix_jax.core.fields import did_you_mean, told
from permix_jax.core.persona import Persona
from permix_jax.personas.mixture import Mixture, assign
from permix_jax.rewards.terms import Term, reward_terms
from permix_jax.train.advantages import group_advantages
from permix_jax.train.loss import LossTokens, token_losses
from permix_jax.train.programs import loss_config, scores_trainer


class Method(NamedTuple):
    """Who gets which persona, what is rewarded, what an advantage is, and what a token's loss is.

    The defaults are ours. All are pure functions of their arguments: a resumed run calls them
    again.

    Attributes:
      assign: (mixture, seed, step, num_problems, group_size, state=running accuracies) ->
        [num_problems][group_size] personas of `mixture.personas`, or None; as `mixture.assign`.
        With personas.level = problem, one persona for all rollouts of a problem.
      terms: of the reward, beside those that `config.rewards` gives a weight.
      advantages: (rewards f32 [N], NaN where the verdict is unknown; groups int [N];
        grpo.advantage_scale) -> finite float [N]; as `group_advantages`.
      token_loss: (log-probs f32 [...]; LossTokens; config=LossConfig) -> (losses f32 [...],
        metrics by name, each f32 [...]), token by token, in jax.numpy; as `token_losses`, which
        also adds the KL.
      file: a hash of the file that they were read from, if they were.
    """

    assign: Callable[..., Sequence[Sequence[Persona | None]]] = assign
    terms: Sequence[Term] = ()
    advantages: Callable[[np.ndarray, np.ndarray, str], np.ndarray] = group_advantages
    token_loss: Callable[..., tuple] = token_losses
    file: str = ""


PERMIX = Method()
_CALLED_WITH = {
    "assign": ("mixture", "seed", "step", "num_problems", "group_size", "state="),
    "advantages": ("rewards", "groups", "scale"),
    "token_loss": ("logprobs", "tokens", "config="),
}


def read_method(path: str) -> Method:
    """The method of a Python file: those of `assign`, `terms`, `advantages`, `token_loss` in it.

    Raises:
      FileNotFoundError, ValueError: one line, for a file that is missing, cannot be run, defines
        none of them, or defines one that cannot be called as it will be.
    """
    file = Path(path)
    if not file.is_file():
        other = "; train.method takes that name" if path in ("grpo", "sft", "distill") else ""
        raise FileNotFoundError(
            f"method is {path!r}: there is no such file; name a Python file{other}"
        )
    source, module = file.read_bytes(), ModuleType(f"method_{file.stem}")
    module.__file__ = str(file)
    try:
        exec(compile(source, str(file), "exec"), vars(module))
    except Exception as error:
        raise ValueError(f"method is {path!r}, which fails: {told(error)}; mend it") from error
    names = [*_CALLED_WITH, "terms"]
    if not (parts := {name: vars(module)[name] for name in names if name in vars(module)}):
        raise ValueError(f"{path} defines none of {', '.join(names)}; define one, or leave it out")
    for name in vars(module).keys() - names:
        if inspect.isfunction(vars(module)[name]) and get_close_matches(name, names, cutoff=0.8):
            raise ValueError(
                f"{path} defines {name}, which nothing calls{did_you_mean(name, names)} Rename it"
            )
    for name, arguments in _CALLED_WITH.items():
        _require_callable(path, name, parts.get(name, getattr(PERMIX, name)), arguments)
    terms = parts.get("terms", ())
    if not isinstance(terms, Sequence) or not all(isinstance(term, Term) for term in terms):
        raise ValueError(f"{path}: terms is no list of Terms; make each by rewards.terms.Term")
    return Method(**parts, file=f"sha256 {hashlib.sha256(source).hexdigest()[:12]}")


def _require_callable(path: str, name: str, part: Any, arguments: Sequence[str]) -> None:
    named = {argument[:-1]: None for argument in arguments if argument.endswith("=")}
    given = [argument for argument in arguments if not argument.endswith("=")]
    try:
        inspect.signature(part).bind(*given, **named)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{path}: {name} cannot be called as {name}({', '.join(arguments)}): {error}; give it "
            "these parameters"
        ) from error


def all_terms(method: Method, config: ConfigDict) -> list[Term]:
    """The terms of `config.rewards`, then the method's own; ValueError if two have one name."""
    terms = [*reward_terms(config.rewards, config.rewards.overlong_tokens), *method.terms]
    names = [term.name for term in terms]
    if doubled := [name for name in names if names.count(name) > 1]:
        raise ValueError(f"method.terms: two terms are called {doubled[0]!r}; rename one")
    return terms


def require_used(method: Method, config: ConfigDict) -> None:
    """Raises ValueError for parts of a method that `train.method` would leave unused, and for a
    `token_loss` of another form than ours."""
    all_terms(method, config)
    own_baseline = method.advantages is not PERMIX.advantages
    if own_baseline and config.grpo.advantage_baseline != "group_mean":
        raise ValueError(
            f"grpo.advantage_baseline is {config.grpo.advantage_baseline!r}, and method.advantages "
            "has a baseline of its own: leave one of them out"
        )
    used = {"grpo": Method._fields, "sft": (), "distill": ("assign",)}[config.train.method]
    for part in describe(method):
        if part not in used and part != "file":
            raise ValueError(
                f"method.{part} is given, and train.method = {config.train.method} does not use "
                "it: leave it out, or use grpo"
            )
    if own_baseline:
        _require_advantages(method.advantages, config)
    if method.token_loss is not PERMIX.token_loss:
        _require_token_losses(method.token_loss, config)


def _require_advantages(advantages: Callable, config: ConfigDict) -> None:
    """Raises ValueError, one line, where `advantages` fails on two groups with a NaN reward."""
    groups = np.repeat([0, 1], config.rollout.group_size)
    rewards = np.linspace(0, 1, len(groups), dtype=np.float32)
    rewards[1] = np.nan
    try:
        given = advantages(rewards, groups, config.grpo.advantage_scale)
    except Exception as error:
        raise ValueError(f"method.advantages fails: {told(error)}; mend it") from error
    as_advantages(given, len(rewards))


def _require_token_losses(token_loss: Callable, config: ConfigDict) -> None:
    """Raises ValueError, one line, where `token_loss` does not give what `token_losses` does.

    It is traced, on tokens that have what the run's own have; nothing is computed.
    """
    loss, x = loss_config(config), jax.ShapeDtypeStruct((2, 3), np.float32)
    tokens = LossTokens(
        *[x] * 4,
        rollout=jax.ShapeDtypeStruct(x.shape, np.int32) if loss.of_completions else None,
        reference=x if loss.kl_weight else None,
        trainer=x if scores_trainer(config) else None,
        mean_log_ratio=x if loss.of_completions else None,
        log_importance=x if loss.of_completions else None,
    )
    try:
        losses, metrics = jax.eval_shape(partial(token_loss, config=loss), x, tokens)
        shapes = {"losses": losses.shape} | {name: y.shape for name, y in metrics.items()}
    except Exception as error:
        raise ValueError(
            f"method.token_loss gives no (losses, metrics by name): {told(error)}; mend it, as "
            "permix_jax/train/loss.py: token_losses"
        ) from error
    if wrong := [name for name, shape in shapes.items() if shape != x.shape]:
        raise ValueError(
            f"method.token_loss gives {wrong[0]} of shape {shapes[wrong[0]]} for tokens of shape "
            f"{x.shape}; give a number for each token, without means or sums"
        )


def describe(method: Method) -> dict[str, Any]:
    """The parts that are not ours, as plain values for config.json: names, and hashes of sources.

    Two descriptions are equal where the names and, as far as Python knows them, the source texts
    are; what a function calls, or closes over, is not looked at.
    """
    own = {name: getattr(method, name) for name in _CALLED_WITH}
    parts: dict[str, Any] = {
        name: _describe(part) for name, part in own.items() if part is not getattr(PERMIX, name)
    }
    if method.terms:
        parts["terms"] = {t.name: f"{t.weight} * {_describe(t.value)}" for t in method.terms}
    return parts | ({"file": method.file} if method.file else {})


def _describe(function: Callable) -> str:
    named = function if hasattr(function, "__qualname__") else type(function)
    name = f"{named.__module__}.{named.__qualname__}"
    try:
        source = inspect.getsource(named)
    except (OSError, TypeError):  # typed into a prompt, or built in
        return name
    return f"{name} (sha256 {hashlib.sha256(source.encode()).hexdigest()[:12]})"


def require_assigned(
    rows: Sequence[Sequence[Persona | None]],
    mixture: Mixture,
    num_problems: int,
    group_size: int,
    shared: bool,
) -> None:
    """Raises ValueError where `assign` gave what cannot be asked.

    `shared`: whether all rollouts of a problem have the same prompt.
    """
    if [len(row) for row in rows] != [group_size] * num_problems:
        raise ValueError(
            f"method.assign gave rows of {sorted({len(row) for row in rows})} personas for "
            f"{len(rows)} problems; give {group_size} for each of {num_problems}"
        )
    known = {persona.id for persona in mixture.personas}
    for problem, row in enumerate(rows):
        if shared and any(persona != row[0] for persona in row):
            raise ValueError(
                f"method.assign gave problem {problem} of the step several personas: set "
                "personas.level to rollout, and personas.share above 0"
            )
        for persona in row:
            if persona is not None and persona.id not in known:
                raise ValueError(
                    f"method.assign gave persona {persona.id!r}, which the mixture has not; use "
                    "those of mixture.personas"
                )


def as_advantages(values: np.ndarray, size: int) -> np.ndarray:
    """What `advantages` gave, as f32 [size]; ValueError for another shape or what is not finite."""
    values = np.asarray(values, np.float32)
    if values.shape != (size,) or not np.isfinite(values).all():
        raise ValueError(
            f"method.advantages gave shape {values.shape}, {np.isfinite(values).sum()} of them "
            f"finite; give {size} finite numbers, 0 where the reward is NaN"
        )
    return values

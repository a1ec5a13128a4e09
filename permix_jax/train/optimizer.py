"""The optimiser and its learning rate, both from optax."""

from collections.abc import Mapping

import jax
import optax
from optax import contrib


def make_optimizer(
    learning_rate: float,
    warmup_steps: int,
    total_steps: int,
    decay: str,
    weight_decay: float,
    max_grad_norm: float,
    decay_to: float = 0.0,
    optimizer: str = "adamw",
    beta1: float = 0.9,
    beta2: float = 0.95,
    epsilon: float = 1e-8,
    moments_dtype: str = "",
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """An optimiser with global-norm clipping, and its learning rate by update.

    Every optimiser takes learning_rate * weight_decay * weight off each weight but vectors (norms
    and biases).
    `moments_dtype`: of the first moments; "": the parameters'.

      adamw      Loshchilov and Hutter, arXiv 1711.05101
      adafactor  Shazeer and Stern, arXiv 1804.04235; no first moments, second ones by rows, columns
      muon       Jordan et al. 2024, "Muon"; embedding, head and vectors have AdamW
      lion       Chen et al., arXiv 2302.06675
    """
    schedule = make_schedule(learning_rate, warmup_steps, total_steps, decay, decay_to)
    decayed = {"weight_decay": weight_decay} | ({"mask": _matrices} if weight_decay else {})
    moments = {"mu_dtype": moments_dtype or None}
    adam = {"b1": beta1, "b2": beta2, "eps": epsilon}
    if optimizer == "adamw":
        chosen = optax.adamw(schedule, **adam, **decayed, **moments)
    elif optimizer == "lion":
        chosen = optax.lion(schedule, b1=beta1, b2=beta2, **decayed, **moments)
    elif optimizer == "adafactor":
        chosen = _with_decay(optax.adafactor(multiply_by_parameter_scale=False), schedule, decayed)
    else:
        muon = contrib.muon(
            1.0,
            beta=beta1,
            eps=epsilon,
            adam_b1=beta1,
            adam_b2=beta2,
            muon_weight_dimension_numbers=_as_matrices,
            **moments,
        )
        chosen = _with_decay(muon, schedule, decayed)
    return optax.chain(optax.clip_by_global_norm(max_grad_norm), chosen), schedule


def _with_decay(
    descent: optax.GradientTransformation, schedule: optax.Schedule, decayed: Mapping
) -> optax.GradientTransformation:
    """An optimiser of learning rate 1, at the rate of `schedule` and with AdamW's weight decay.

    optax's Adafactor would not multiply the decay by the learning rate, and its Muon would not
    leave out vectors.
    """
    decay = optax.add_decayed_weights(**decayed)
    return optax.chain(descent, optax.scale(-1), decay, optax.scale_by_learning_rate(schedule))


def make_schedule(
    learning_rate: float, warmup_steps: int, total_steps: int, decay: str, decay_to: float
) -> optax.Schedule:
    """Linear warm-up, then `decay` "none", "linear", "cosine" or "exponential", which ends at
    `decay_to` times the peak."""
    after = max(1, total_steps - warmup_steps)
    tail = {
        "none": lambda: optax.constant_schedule(learning_rate),
        "linear": lambda: optax.linear_schedule(learning_rate, learning_rate * decay_to, after),
        "cosine": lambda: optax.cosine_decay_schedule(learning_rate, after, decay_to),
        "exponential": lambda: optax.exponential_decay(learning_rate, after, decay_to),
    }[decay]()
    # Warm-up starts at 1/(warmup+1), so that the first step is not lost.
    warmup = optax.linear_schedule(learning_rate / (warmup_steps + 1), learning_rate, warmup_steps)
    return optax.join_schedules([warmup, tail], [warmup_steps]) if warmup_steps else tail


def _matrices(params):
    """True for what has a weight decay: all but vectors, which are norms and biases."""
    return jax.tree.map(lambda x: x.ndim > 1, params)


def _as_matrices(params):
    """Which axes of each weight Muon takes as a matrix's input; None: AdamW updates it."""

    def axes(path, x):
        names = {entry.key for entry in path}
        if x.ndim < 2 or names & {"embedding", "head"}:
            return None
        # The heads' outputs come in with two axes, as [heads, head_dim, ...].
        inputs = tuple(range(x.ndim - 1)) if names & {"out", "out_lora_a"} else (0,)
        return contrib.MuonDimensionNumbers(inputs, tuple(range(len(inputs), x.ndim)))

    return jax.tree_util.tree_map_with_path(axes, params)

"""How fast the machine could be: what it can do, and how little a step needs of it.

`python benchmarks/limits.py` measures this machine and prints JSON.
"""

import json
import time
from collections.abc import Callable
from typing import NamedTuple

from settings import Setting


class Machine(NamedTuple):
    """flops: FLOP/s of matmuls. bandwidth: bytes/s of reading an array."""

    flops: float
    bandwidth: float


def least_seconds(setting: Setting, machine: Machine, itemsize: int = 4) -> dict[str, float]:
    """The least seconds of "rollout" and "update" that arithmetic and weights allow.

    A part takes the longer of its FLOPs (2 a multiply-add, matmuls alone) at the machine's rate and
    its bytes at its bandwidth. Prefill goes through each prompt once. A decode step goes through
    the rows that have not ended, reads all weights once, the keys and values of each prompt once,
    and those of its rows' own tokens. The update is a forward pass and a backward one of twice its
    FLOPs, over each prompt once and the real tokens of all rows; nothing is computed twice.

    itemsize: bytes of a weight, a key or a value.
    """
    s, work = setting.shape, setting.work()
    E, L, F = s["hidden_size"], s["num_hidden_layers"], s["intermediate_size"]
    H, K = s["num_attention_heads"], s["num_key_value_heads"]
    D = s.get("head_dim") or E // H
    layers = L * (2 * E * H * D + 2 * E * K * D + 3 * E * F)  # multiply-adds a token
    head = s["vocab_size"] * E
    attention = L * 2 * H * D  # multiply-adds a token and key
    cache = L * 2 * K * D * itemsize  # bytes a token
    U, P, lengths = setting.prompts, setting.prompt_tokens, work["lengths"]

    def seconds(multiply_adds: float, read: float = 0) -> float:
        return max(2 * multiply_adds / machine.flops, read / machine.bandwidth)

    prefill = U * P * (layers + attention * (P + 1) / 2)
    rollout = seconds(prefill + U * head)
    for t in range(1, max(lengths)):  # token t of each row is read, token t + 1 is drawn
        rows = sum(n > t for n in lengths)
        read = itemsize * (layers + head) + cache * (U * P + rows * t)
        rollout += seconds(rows * (layers + head + attention * (P + t)), read)
    completions = sum(n * (layers + head) + attention * (n * P + n * (n + 1) / 2) for n in lengths)
    return {"rollout": rollout, "update": seconds(3 * (prefill + completions))}


def measure() -> Machine:
    """The best of several tries at a matmul and a sum, each large, with JAX on its device."""
    import jax
    import jax.numpy as jnp

    square = jnp.ones((3072, 3072), jnp.float32)
    array = jnp.zeros(2**27, jnp.float32)  # 512 MB
    return Machine(
        flops=2 * 3072**3 / best_seconds(jax.jit(jnp.matmul), square, square),
        bandwidth=array.nbytes / best_seconds(jax.jit(jnp.sum), array),
    )


def best_seconds(function: Callable, *args, tries: int = 7) -> float:
    """Seconds of the fastest call, the first one left out."""
    function(*args).block_until_ready()
    seconds = []
    for _ in range(tries):
        begin = time.perf_counter()
        function(*args).block_until_ready()
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


if __name__ == "__main__":
    print(json.dumps(measure()._asdict()))

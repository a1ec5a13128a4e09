import jax
import jax.numpy as jnp
import numpy as np
import pytest

from permix_jax.grpo.micro_batches import join_rows, split_rows


@pytest.mark.parametrize("parts", [1, 2, 3, 6])
def test_joining_parts_is_the_inverse_of_splitting(parts):
    rows = {"prompt": jnp.arange(6), "rollout": jnp.arange(6 * 4 * 5).reshape(24, 5)}
    joined = join_rows(split_rows(rows, parts, prompts=6), prompts=6)
    assert jax.tree.all(jax.tree.map(np.array_equal, joined, rows))


def test_split_rows_keeps_rollouts_with_their_prompt_and_uses_each_once():
    prompts, rollouts = np.arange(6), np.arange(18) // 3
    parts = split_rows({"prompts": prompts, "rollouts": rollouts}, 2, prompts=6)
    assert parts["prompts"].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert parts["rollouts"].tolist() == [[0, 0, 0, 2, 2, 2, 4, 4, 4], [1, 1, 1, 3, 3, 3, 5, 5, 5]]

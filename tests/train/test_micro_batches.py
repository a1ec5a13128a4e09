import jax
import jax.numpy as jnp
import numpy as np

from permix_jax.train.micro_batches import accumulate, split_rows


def test_split_rows_uses_each_once():
    parts = split_rows({"x": np.arange(6), "y": np.arange(12).reshape(6, 2)}, 2)
    assert parts["x"].tolist() == [[0, 2, 4], [1, 3, 5]]
    assert parts["y"][1].tolist() == [[2, 3], [6, 7], [10, 11]]


def test_parts_are_added_up_in_f32_but_for_maxima_and_only_as_many_as_there_are():
    def gradients_of(scale, part):
        total = part["x"].sum()
        return (scale * total).astype(jnp.bfloat16), {"mean": total, "mean_max": part["x"].max()}

    parts = {"x": jnp.array([[1.0, 256.0], [1.0, 0.0], [3.0, 2.0], [1000.0, 0.0]])}
    run = jax.jit(lambda count: accumulate(gradients_of, jnp.float32(1), parts, count))
    gradients, metrics = run(3)
    # 256 + 1 is 256 in bf16, and 257 + 1 + 5 is 262 if it is summed in f32 and rounded once.
    assert gradients.dtype == jnp.bfloat16 and float(gradients) == 262.0
    assert {name: float(x) for name, x in metrics.items()} == {"mean": 263.0, "mean_max": 256.0}

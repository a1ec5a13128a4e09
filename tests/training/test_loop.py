"""The loop of SFT and GRPO, on a state that a step adds one to."""

import jax.numpy as jnp
import pytest

from permix_jax.training.loop import fit
from permix_jax.training.state import TrainState
from permix_jax.training.stop import Stopped, StopRequest


def run(folder, after_step, steps=5):
    def update(state, step):
        params = {"w": state.params["w"] + 1}
        return state.replace(step=state.step + 1, params=params), {"loss": 0.0, "grad_norm": 0.0}

    state = TrainState(jnp.int32(0), {"w": jnp.zeros(2)}, {"m": jnp.zeros(2)})
    settings = {"checkpoint_every": 4, "keep_checkpoints": 2, "shown": {}}
    return fit(
        "test", folder, state, update, steps=steps, stop=StopRequest(), after_step=after_step,
        **settings,
    )  # fmt: skip


def test_a_stop_in_what_follows_a_step_keeps_the_step_and_takes_up_what_was_broken_off(tmp_path):
    seen = []

    def stopped_at_3(state, step):
        seen.append((step, float(state.params["w"][0])))
        if step == 3:
            raise Stopped

    with pytest.raises(Stopped):
        run(tmp_path, stopped_at_3)
    assert seen == [(1, 1.0), (2, 2.0), (3, 3.0)]

    again = []
    state = run(tmp_path, lambda state, step: again.append((step, float(state.params["w"][0]))))
    assert again == [(3, 3.0), (4, 4.0), (5, 5.0)]
    assert float(state.params["w"][0]) == 5


def test_a_finished_run_does_no_step_again(tmp_path):
    run(tmp_path, lambda state, step: None)
    again = []
    state = run(tmp_path, lambda state, step: again.append(step))
    assert again == [5] and int(state.step) == 5

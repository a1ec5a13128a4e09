"""The loop of SFT and GRPO, on a state that a step adds one to."""

import jax.numpy as jnp
import pytest

from permix_jax.core.stop import Stopped, StopRequest
from permix_jax.models.params import abstract_like
from permix_jax.train.checkpoints import Checkpoints, DamagedError
from permix_jax.train.loop import Loop, Verdict, fit
from permix_jax.train.state import TrainState


def run(folder, after_step=lambda state, step: None, steps=5, **keep):
    def update(state, step):
        params = {"w": state.params["w"] + 1}
        return state.replace(step=state.step + 1, params=params), {"loss": 0.0, "grad_norm": 0.0}

    def create():
        return TrainState(jnp.int32(0), {"w": jnp.zeros(2)}, {"m": jnp.zeros(2)})

    loop = Loop("test", folder, steps, checkpoint_every=4, keep_checkpoints=2, shown={}, **keep)
    return fit(loop, abstract_like(create()), create, update, StopRequest(), after_step)


def test_a_stop_in_what_follows_a_step_keeps_the_step_and_takes_up_what_was_broken_off(tmp_path):
    seen = []

    def look(state, step):
        seen.append((step, float(state.params["w"][0])))
        if seen == [(1, 1.0), (2, 2.0), (3, 3.0)]:
            raise Stopped

    with pytest.raises(Stopped):
        run(tmp_path, look)
    state = run(tmp_path, look)
    assert seen[3:] == [(3, 3.0), (4, 4.0), (5, 5.0)]
    assert float(state.params["w"][0]) == 5
    state = run(tmp_path, look)  # it is finished: no step is done again
    assert seen[6:] == [(5, 5.0)] and int(state.step) == 5


def saved(folder):
    return {path.name for path in (folder / "checkpoints").iterdir()}


def test_named_steps_and_the_best_stay_beside_the_newest(tmp_path):
    verdicts = {step: Verdict(3 if step < 9 else 9, False) for step in (3, 6, 9)}

    def judge(state, step):
        return verdicts.get(step)

    run(tmp_path, judge, steps=11, keep_steps=[2], judged_every=3)
    assert saved(tmp_path) == {"2", "9", "11"}  # 9 is one of the newest
    run(tmp_path, judge, steps=14, keep_steps=[2], judged_every=3)
    assert saved(tmp_path) == {"2", "12", "14"}  # nothing was said of 11, where it went on
    run(tmp_path, lambda state, step: Verdict(12, False), steps=18, judged_every=3)
    assert saved(tmp_path) == {"12", "16", "18"}  # 2 is no longer asked for


def test_the_best_stays_while_others_come_and_go(tmp_path):
    run(tmp_path, lambda state, step: Verdict(4, False), steps=40)
    assert saved(tmp_path) == {"4", "36", "40"}


def test_a_verdict_ends_the_loop_and_a_resumed_one_at_once(tmp_path):
    def judge(state, step):
        return Verdict(2, step == 6) if step % 2 == 0 else None

    assert int(run(tmp_path, judge, steps=9, judged_every=2).step) == 6
    assert saved(tmp_path) == {"2", "4", "6"}
    assert int(run(tmp_path, judge, steps=9, judged_every=2).step) == 6
    assert int(run(tmp_path, steps=9, judged_every=2).step) == 9


def test_a_run_whose_checkpoints_are_all_damaged_stops_and_keeps_its_metrics(tmp_path):
    run(tmp_path)
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    for file in tmp_path.glob("checkpoints/*/params/**/*"):
        if file.is_file():
            file.write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DamagedError, match="every checkpoint is damaged"):
            run(tmp_path)
        assert (tmp_path / "metrics.jsonl").read_bytes() == metrics


def test_a_restore_without_memory_keeps_checkpoints_and_metrics(tmp_path, monkeypatch):
    run(tmp_path)

    def restore(*_):
        raise RuntimeError("RESOURCE_EXHAUSTED: out of memory")

    kept = {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()}
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "_restored", restore)
        with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
            run(tmp_path)
    assert {p: p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()} == kept
    assert int(run(tmp_path).step) == 5

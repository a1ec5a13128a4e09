"""A resumed run holds as many bytes on its devices as one that never stopped."""

import gc

import jax
import pytest
from runs import crash_after, load_config

from permix_jax.app.experiment import run
from permix_jax.train.checkpoints import Checkpoints
from permix_jax.train.log import MetricsLog


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.mark.parametrize(
    "fields",
    [{}, {"grpo__kl_weight": 0.0}, {"lora__rank": 2}, {"train__method": "sft"}],
    ids=["reference", "no reference", "adapters", "supervised"],
)
def test_a_resumed_run_holds_what_a_fresh_one_holds(cache, tmp_path, monkeypatch, fields):
    monkeypatch.setenv("PERMIX_CACHE", str(cache))
    small = {"train__problems_per_step": 2, "rollout__group_size": 2}
    config = load_config("permix.py", "tiny", sft__steps=2, train__steps=3, **small, **fields)
    held, write, save = [], MetricsLog.write, Checkpoints.save

    def save_and_wait(self, *args):  # a save in flight holds a copy
        save(self, *args)
        self.wait()

    def measure(self, row):
        if row["step"] == 3:
            gc.collect()
            held.append(sum(x.nbytes for x in jax.live_arrays()) - before)
        write(self, row)

    monkeypatch.setattr(MetricsLog, "write", measure)
    monkeypatch.setattr(Checkpoints, "save", save_and_wait)
    for _ in range(2):  # the second goes on from checkpoint 2
        gc.collect()
        before = sum(x.nbytes for x in jax.live_arrays())
        with crash_after(3):
            run(config, tmp_path / "run", "permix", "tiny")
    fresh, resumed = held
    assert fresh == resumed > 0

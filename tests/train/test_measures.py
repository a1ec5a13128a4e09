"""What a step took of the machine."""

from dataclasses import replace
from pathlib import Path

import jax
import numpy as np
import pytest
from dense import pack_arrays

from permix_jax.core.compile_counts import COMPILED
from permix_jax.core.tpus import CHIPS
from permix_jax.models.config import Lora
from permix_jax.train.measures import Meter, model_flops, share_of_peak, trained_passes


def test_the_seconds_of_compiling_are_those_of_the_step(tmp_path):
    def compiles(seconds):
        jax.monitoring.record_event_duration_secs(COMPILED, seconds)

    with Meter(tmp_path) as meter:
        compiles(9.0)  # before the first step
        meter.begin(1)
        compiles(1.0)
        compiles(0.5)
        assert meter.end(1)["time/compile"] == 1.5
        meter.begin(2)
        assert meter.end(2)["time/compile"] == 0.0
    compiles(2.0)
    assert meter.end(3)["time/compile"] == 0.0


def test_a_compilation_is_noticed(tmp_path):
    with Meter(tmp_path) as meter:
        meter.begin(1)
        jax.jit(lambda x: x * 3 + len("a program of its own"))(np.float32(2))
        assert meter.end(1)["time/compile"] > 0


class _Device:
    def __init__(self, stats):
        self.memory_stats = lambda: stats


@pytest.mark.parametrize(
    ("stats", "metrics"),
    [
        ([{"peak_bytes_in_use": 2**30}, {"peak_bytes_in_use": 3 * 2**30}], 3.0),
        ([None, {}], None),
    ],
)
def test_the_peak_of_memory_is_that_of_the_fullest_device(tmp_path, monkeypatch, stats, metrics):
    monkeypatch.setattr(jax, "local_devices", lambda: [_Device(each) for each in stats])
    with Meter(tmp_path) as meter:
        meter.begin(1)
        assert meter.end(1).get("perf/peak_memory_gib") == metrics


@pytest.fixture
def traced(monkeypatch):
    """What the profiler was told, in turn."""
    calls = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder: calls.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


@pytest.mark.parametrize(
    ("steps", "seen"),
    [
        ((1, 2, 3, 4), [None, "here", "here", "stop"]),
        ((3, 4), ["here", "stop"]),  # a run that goes on in between
        ((4, 5), [None, None]),
        ((1, 2), [None, "here"]),  # a run that ends before
    ],
)
def test_the_steps_asked_for_are_traced(traced, steps, seen):
    found = []
    with Meter(Path("here"), (2, 3)) as meter:
        for step in steps:
            meter.begin(step)
            found.append(traced[-1] if traced else None)
            meter.end(step)
    assert found == seen
    assert traced in ([], ["here", "stop"])


def test_a_trace_ends_where_a_step_fails(traced):
    with pytest.raises(KeyError), Meter(Path("here"), (1, 3)) as meter:
        meter.begin(1)
        raise KeyError
    assert traced == ["here", "stop"]


def test_a_trace_is_a_file_that_xprof_reads(tmp_path):
    with Meter(tmp_path, (1, 1)) as meter:
        meter.begin(1)
        jax.block_until_ready(jax.jit(lambda x: x + 1)(np.ones(3)))
        meter.end(1)
    assert list(tmp_path.glob("plugins/profile/*/*.xplane.pb"))


# Of the tiny decoder: query and out, key and value, gate, up and down; two layers; head.
WEIGHTS = 2 * (2 * 16 * 4 * 8 + 2 * 16 * 2 * 8 + 3 * 16 * 24)
HEAD = 48 * 16


@pytest.fixture(scope="module")
def rows():
    """A prompt of 2 tokens in 3, and its completions of 3 and 1 tokens."""
    prompt = np.array([[5, 6, 0]]), np.array([[True, True, False]])
    mask = np.array([[True, True, True], [True, False, False]])
    return pack_arrays(*prompt, np.where(mask, 7, 0), mask).rows


def test_the_models_work_is_that_of_real_tokens_and_of_targets(tiny_model, rows):
    # 6 tokens see 1, 2; 3, 4, 5; 3 keys. Scores and sums over values, 4 heads of 8, two layers.
    attention = 2 * 4 * 4 * 8 * (1 + 2 + 3 + 4 + 5 + 3)
    wanted = 2 * WEIGHTS * 6 + 2 * HEAD * 4 + attention
    assert model_flops(tiny_model.config, rows) == wanted
    local = replace(tiny_model.config, local_layers=(1,), window=2)
    fewer = 4 * 4 * 8 * (1 + 2 + 3 + 4 + 5 + 3 - (1 + 2 + 2 + 2 + 2 + 2))
    assert model_flops(local, rows) == wanted - fewer


def test_adapters_leave_out_the_gradients_of_weights(tiny_model):
    assert trained_passes(tiny_model.config) == 3
    assert trained_passes(replace(tiny_model.config, lora=Lora(2, 4.0, ("q_proj",)))) == 2


def test_the_peak_is_the_chips_or_the_configs(monkeypatch):
    assert share_of_peak(1e12, 2.0, 4, 0.0) == {}  # a CPU has none
    assert share_of_peak(1e12, 2.0, 4, 0.5) == {"perf/mfu": 0.25}
    device = type("Device", (), {"device_kind": "TPU v5 lite"})
    monkeypatch.setattr(jax, "devices", lambda: [device])
    peak = CHIPS["v5e"].flops
    assert share_of_peak(2 * peak, 2.0, 4, 0.0) == {"perf/mfu": 0.25}
    assert share_of_peak(1e12, 2.0, 4, 0.5) == {"perf/mfu": 0.25}

"""The accelerator check on a CPU: what each part finds, and what stays where one of them fails."""

import json
import subprocess
import sys
from contextlib import closing
from dataclasses import replace

import accelerator
import accelerator_experiment
import accelerator_parity
import accelerator_resume
import accelerator_speed
import jax.numpy as jnp
import numpy as np
import pytest
from accelerator import in_process, run_parts
from accelerator_part import run_part
from accelerator_record import Given, Record, said
from accelerator_resume import compare
from accelerator_values import FILE, load
from accelerator_weights import prepare
from random_model import write_model
from runs import ROOT

from permix_jax.app.workdir import newest_saved_step
from permix_jax.train.checkpoints import Checkpoints
from permix_jax.train.log import MetricsLog


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A folder that --prepare made of a tiny model."""
    folder = tmp_path_factory.mktemp("accelerator")
    write_model(folder / "model")
    prepare(str(folder / "model"), folder / "weights")
    return folder / "weights"


@pytest.fixture
def given(tmp_path, monkeypatch):
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path / "cache"))
    return Given(None, tmp_path / "scratch", tiny=True)


class PowerCut(Exception):
    pass


def power_cut():
    raise PowerCut


def train(config, workdir, after=lambda step: None):
    """A run as far as its files show it, which goes on where it was saved."""
    done = newest_saved_step(workdir)
    log, checkpoints = MetricsLog(workdir, done), Checkpoints(workdir / "checkpoints")
    with closing(log), closing(checkpoints):
        for step in range(done + 1, config.train.steps + 1):
            log.write({"step": step, "reward": step / 8, "time/update": float(done)})
            if step % config.train.checkpoint_every == 0:
                checkpoints.save(step, {"w": jnp.full(2, step, jnp.float32)}, {"m": jnp.ones(2)})
            after(step)


def stage_here(stage, given, folder, deterministic):
    """A process of the part on resuming, in this one; PowerCut stands for SIGKILL."""
    config = accelerator_resume.config_of(given, deterministic)
    if stage == "second":
        return accelerator_resume.second(config, folder)
    with pytest.raises(PowerCut):
        accelerator_resume.first(config, folder, power_cut)


def run_here(name: str, given: Given, record, seconds: float) -> str:
    """A part in this process."""
    return run_part(name, given, Record.read(record))


def content(folder) -> dict:
    return json.loads((folder / "accelerator.json").read_text())


# ---- the parts ----------------------------------------------------------------------------------


def test_a_killed_run_is_compared_with_the_whole_one(given, monkeypatch):
    monkeypatch.setattr(accelerator_resume, "train", train)
    monkeypatch.setattr(accelerator_resume, "in_process", stage_here)
    found = {}
    accelerator_resume.measure(replace(given, platform="gpu"), found.__setitem__)
    assert list(found) == ["tiny, by default", "tiny, deterministic"]
    for figures in found.values():
        assert figures["equal"] and figures["killed_after"] == 5 and figures["went_on_from"] == 3


def test_the_other_parts_say_what_they_find(weights, given, tmp_path):
    names = [name for name in accelerator.SHARES if name != "resume"]
    given, record = replace(given, weights=weights), Record(tmp_path, names)
    assert run_parts(names, 3600, given, record, run_here) == []
    parts = content(tmp_path)["parts"]
    assert {part["state"] for part in parts.values()} == {"done"}
    device, parity, speed, experiment = (part["found"] for part in parts.values())

    assert device["device"]["platform"] == "cpu"
    assert device["matmul bfloat16"]["reached"] > 0 and device["read"]["reached"] > 0

    computed = {name: x for name, x in parity.items() if "not_computed" not in x}
    assert all(figures["alike"] for figures in computed.values())
    assert {name.partition(",")[0] for name in parity.keys() - computed.keys()} == {"tpu"}
    assert parity["model, float32"]["gradient"] < 1e-5 < parity["model, bfloat16"]["gradient"]

    assert list(speed) == ["tiny, scoring", "tiny, update", "tiny, rollout of 16 x 4"]
    for figures in speed.values():
        assert figures["seconds"] > 0 and figures["tokens_per_second"] > 0

    assert set(experiment) == {"base", "permix, curve", "permix", "rlvr, curve", "rlvr"}
    for method in ("permix", "rlvr"):
        assert experiment[method]["steps"] == 2
        assert len(experiment[f"{method}, curve"]["reward"]) == 1
        assert experiment[method]["chance"] == 0.5 >= experiment[method]["worst"]

    report = (tmp_path / "accelerator.md").read_text()
    assert "| model, float32 | " in report and "| permix | 2 | " in report
    assert report.count("\n## ") == 4


def test_one_measurement_that_fails_leaves_the_others(given, monkeypatch):
    def measured(self, device):
        return {"seconds": 1.0}

    def fails(setting, device):
        raise RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nA long dump.")

    monkeypatch.setattr(accelerator_speed.Work, "scoring", measured)
    monkeypatch.setattr(accelerator_speed.Work, "update", measured)
    monkeypatch.setattr(accelerator_speed, "rollout", fails)
    found = {}
    accelerator_speed.measure(given, found.__setitem__)
    assert found["tiny, update"] == {"seconds": 1.0}
    (told,) = found["tiny, rollout of 16 x 4"].values()
    assert told.startswith("too little memory on the device") and "\n" not in told

    found = {}
    accelerator_speed.measure(replace(given, deadline=0.0), found.__setitem__)
    names = ["tiny, scoring", "tiny, update", "tiny, rollout of 16 x 4"]
    assert found == {"no time was left for": {"these": names}}


def test_what_does_not_fit_is_not_tried():
    setting = accelerator_speed.Setting(accelerator_speed.TINY, 2, 8, 16, 8)
    peak = accelerator_speed.Peak(1.0, 1.0)
    needed = int(accelerator_speed.rollout_bytes(setting))
    # 512 x 32 of the embedding, 3 * 32 * 64 of the MLP, 3 * 32 * 32 of attention, three norms; in
    # f32 and bf16. Keys and values of 2 heads of 8, in bf16, of 2 * 16 + 16 * 8 tokens.
    weights = 512 * 32 + 3 * 32 * 64 + 3 * 32 * 32 + 3 * 32
    assert needed == 6 * weights + (2 * 16 + 16 * 8) * 2 * 2 * 2 * 8
    small = accelerator_speed.Device(peak, None, needed - 1)
    assert "too little memory" in accelerator_speed.rollout(setting, small)["not_measured"]


def test_bytes_of_decoding_follow_the_dtype_and_the_size_of_heads():
    shape = {**accelerator_speed.TINY, "head_dim": 16}
    setting = accelerator_speed.Setting(shape, 2, 8, 16, 3)
    heads, kv_heads, embed = 4 * 16, 2 * 16, 32
    weights = 2 * embed * heads + 2 * embed * kv_heads + 3 * embed * 64 + 512 * embed
    # Two steps; keys and values of the prompts' tokens, and of the rows' own 1 and 2.
    cached = 2 * kv_heads * (2 * 2 * 16 + 16 * (1 + 2))
    assert accelerator_speed.decode_bytes(setting) == 2 * (2 * weights + cached)


def test_an_implementation_that_is_wrong_or_missing_is_told(monkeypatch):
    case, right = accelerator_parity.Case(2, 1, 8), accelerator_parity.attend_packed

    def wrong(query, *others):
        return right(query, *others) + jnp.asarray(0.1, query.dtype)

    def missing(*_):
        raise NotImplementedError("the kernel takes heads of 64 or more,\nnot of 8")

    names = {"reference": right, "wrong": wrong, "missing": missing}
    monkeypatch.setattr(accelerator_parity, "implementations", lambda: names)
    found = dict(accelerator_parity.attention_distances(case, True))
    told = {name.split(",")[0]: figures for name, figures in found.items()}
    assert told["reference"]["alike"] and not told["wrong"]["alike"]
    assert told["wrong"]["query"] < 1e-2 < told["wrong"]["output"]
    assert told["missing"] == {
        "not_computed": "NotImplementedError: the kernel takes heads of 64 or more, not of 8"
    }


def test_runs_that_differ_are_told_apart(tmp_path):
    for name, off in ("whole", 0.0), ("killed", 1.0):
        log = MetricsLog(tmp_path / name, 0)
        for step in (1, 2):
            reward = 0.5 + off / 4 * (step == 2)
            log.write({"step": step, "reward": reward, "time/update": off})
        log.close()
        checkpoints = Checkpoints(tmp_path / name / "checkpoints")
        params, moments = {"w": jnp.array([3.0, 4.0])}, {"m": jnp.array([12.0 + off, 0.0])}
        checkpoints.save(2, params, {"step": jnp.int32(2), "opt_state": moments})
        checkpoints.close()
    assert compare(tmp_path / "whole", tmp_path / "killed") == {
        "equal": False,
        "first_step": 2,
        "reward": 0.25,
        "entries": 1 / 4,
        "apart": pytest.approx(1 / 13),
    }
    assert compare(tmp_path / "whole", tmp_path / "whole")["equal"]


def test_the_curve_has_means_of_ten_steps():
    rows = [
        {"reward": step / 10, "time/rollout": 1.0, "time/update": 2.0, "kl": 0.1}
        for step in range(1, 13)
    ]
    found = accelerator_experiment.curve(rows)
    assert found["steps"] == [10, 12]
    np.testing.assert_allclose(found["reward"], [0.55, 0.75])  # of steps 1 to 10 and of 3 to 12
    assert found["rollout_seconds"] == 1.0 and found["update_seconds"] == 2.0


# ---- the command --------------------------------------------------------------------------------


def test_a_part_that_fails_or_finds_no_time_leaves_the_others(tmp_path, capsys, monkeypatch):
    given, seen = Given(None, tmp_path), {}
    monkeypatch.setattr(accelerator.time, "monotonic", lambda: 0.0)  # no part takes any time

    def start(name, given, path, seconds):
        seen[name] = round(seconds)
        Record.read(path).add(name, "first", {"value": 1.5, "others": [1, 2]})
        return "it broke" if name == "parity" else ""

    record = Record(tmp_path, ["device", "parity", "speed"])
    assert run_parts(["device", "parity", "speed"], 900, given, record, start) == ["parity"]
    parts = content(tmp_path)["parts"]
    assert [part["state"] for part in parts.values()] == ["done", "it broke", "done"]
    assert parts["parity"]["found"] == {"first": {"value": 1.5, "others": [1, 2]}}
    # Shares of 1, 4 and 5; what a part leaves goes to the later ones.
    assert seen == {"device": 90, "parity": 400, "speed": 900}
    assert "parity: it broke\n" in capsys.readouterr().out
    assert "| first | 1.5 | 1, 2 |" in (tmp_path / "accelerator.md").read_text()

    record = Record(tmp_path, ["device", "parity"])
    assert run_parts(["device", "parity"], 1, given, record, start) == []
    states = [part["state"] for part in content(tmp_path)["parts"].values()]
    assert states == ["no time was left for it"] * 2


PART = """
import os, signal, sys
sys.path.insert(0, {benchmarks!r})
from pathlib import Path
from accelerator_record import Record
record = Record.read(Path(sys.argv[3]))
record.add(sys.argv[1], "first", {{"value": 1}})
if sys.argv[1] == "device":
    os.kill(os.getpid(), signal.SIGKILL)
signal.pause()
"""


def test_a_process_that_dies_or_does_not_end_leaves_what_it_found(tmp_path, monkeypatch):
    script = tmp_path / "part.py"
    script.write_text(PART.format(benchmarks=str(ROOT / "benchmarks")))
    monkeypatch.setattr(accelerator, "_own", lambda _: [sys.executable, str(script)])
    wait = subprocess.Popen.wait

    def until_it_has_written(process, timeout=None):
        if timeout is None or "device" in process.args:
            return wait(process)
        while not Record.read(tmp_path / "accelerator.json").found("parity"):
            pass
        raise subprocess.TimeoutExpired(process.args, timeout)

    monkeypatch.setattr(subprocess.Popen, "wait", until_it_has_written)
    record = Record(tmp_path, ["device", "parity"])
    failed = run_parts(["device", "parity"], 900, Given(None, tmp_path), record, in_process)
    assert failed == ["device", "parity"]
    parts = content(tmp_path)["parts"]
    assert [part["found"] for part in parts.values()] == [{"first": {"value": 1}}] * 2
    assert parts["device"]["state"] == "its process was ended by signal 9"
    assert parts["parity"]["state"] == "its time ran out; what was done by then is kept"


def test_without_weights_one_line_says_how_to_make_them(given, tmp_path):
    record = Record(tmp_path, ["experiment"])
    remedy = "make the folder with `python benchmarks/accelerator.py --prepare=DIR` first"
    assert run_part("experiment", given, record) == f"--weights is not given; {remedy}"
    empty = replace(given, weights=tmp_path)
    told = f"--weights={tmp_path}: has no config.json; {remedy}"
    assert run_part("experiment", empty, record) == told
    assert content(tmp_path)["parts"]["experiment"]["state"] == told


def test_a_damaged_file_of_values_is_one_line(tmp_path):
    (tmp_path / FILE).write_bytes(b"no zip")
    with pytest.raises(ValueError, match=r"parity\.npz: damaged \(.*\); make the folder again"):
        load(tmp_path / FILE)


def test_a_cpu_is_no_accelerator(given, tmp_path):
    record = Record(tmp_path, ["device", "speed"])
    large = replace(given, tiny=False)
    assert run_part("device", large, record).startswith("JAX finds no accelerator here, only a CPU")
    told = "there is no accelerator to measure, only a CPU"
    assert run_part("speed", large, record) == told


def test_known_troubles_are_one_line():
    busy = RuntimeError("Unable to initialize backend 'tpu': The TPU is already in use by process")
    assert said(busy).startswith("the device cannot be opened; end the process that uses it")
    full = RuntimeError("RESOURCE_EXHAUSTED: Failed to allocate\n1 GiB")
    assert said(full).startswith("too little memory on the device, or another process holds it")
    assert "\n" not in said(full)
    assert said(ValueError("a.b is 3; use 2")) == "a.b is 3; use 2"


def test_given_survives_the_way_to_a_process(tmp_path):
    for given in Given(None, tmp_path), Given(tmp_path / "w", tmp_path, True, 5.0, "gpu"):
        assert Given.from_json(given.to_json()) == given


@pytest.mark.parametrize("wrong", ["--parts=device,heat", "--minutes=0"])
def test_impossible_arguments_are_refused(monkeypatch, capsys, wrong):
    monkeypatch.setattr(sys, "argv", ["accelerator.py", wrong])
    with pytest.raises(SystemExit):
        accelerator.parse_args()
    expected = {
        "--parts=device,heat": "there is no 'heat'; use device, parity, speed, resume, experiment",
        "--minutes=0": "--minutes is 0.0; use a number above 0",
    }
    assert expected[wrong] in capsys.readouterr().err

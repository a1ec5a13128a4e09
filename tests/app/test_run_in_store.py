"""A run whose workdir is in an object store ends as a local one, whatever the store does."""

import signal
import subprocess
import sys
import threading
from contextlib import closing

import jax
import numpy as np
import pytest
from fsspec import register_implementation
from fsspec.implementations.memory import MemoryFileSystem
from runs import (
    ROOT,
    crash_after,
    load_config,
    metrics,
    newest_arrays,
    own_process,
    run_tiny,
    strike,
    train,
)
from store_server import s3_server

from permix_jax.app.export import export
from permix_jax.app.policies import build_policy
from permix_jax.core import stores
from permix_jax.core.places import place_of
from permix_jax.core.sharding import make_mesh
from permix_jax.report.comparison_page import compare
from permix_jax.train.checkpoints import Checkpoints, load_params
from permix_jax.train.mirror import Mirror

CONFIG = f"--config={ROOT / 'configs/permix.py'}:tiny"


_HERE, _COUNTING = threading.local(), threading.Lock()


class Faulty(MemoryFileSystem):
    """A store in memory: after the first calls every tenth fails, and while `away` all do."""

    protocol, store, pseudo_dirs = "faulty", {}, [""]
    calls, away = 0, False

    @classmethod
    def _strip_protocol(cls, path):
        return MemoryFileSystem._strip_protocol(path.removeprefix("faulty://"))

    def __getattribute__(self, name):
        value = super().__getattribute__(name)
        if name not in ("cat_file", "pipe_file", "put_file", "get_file", "isfile", "glob", "find"):
            return value

        def call(*args, **options):
            if getattr(_HERE, "inside", False):  # a call of a call: the outer one has been counted
                return value(*args, **options)
            with _COUNTING:
                Faulty.calls += 1
                fails = Faulty.away or (Faulty.calls > 30 and Faulty.calls % 10 == 0)
            if fails:
                raise ConnectionError("connection reset")
            _HERE.inside = True
            try:
                return value(*args, **options)
            finally:
                _HERE.inside = False

        return call


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    folder = tmp_path_factory.mktemp("local")
    return run_tiny(folder / "run", cache=folder / "cache")


@pytest.fixture
def faulty(monkeypatch):
    register_implementation("faulty", Faulty, clobber=True)
    Faulty.calls = 0
    monkeypatch.setattr(stores.time, "sleep", lambda seconds: None)
    yield place_of("faulty://bucket/runs/run")
    Faulty.away = False
    Faulty.store.clear()
    stores.store_of.cache_clear()


def arrays_of(workdir) -> list[np.ndarray]:
    """All arrays of the newest checkpoint, of a local folder or of a store."""
    folder = workdir / "checkpoints"
    with closing(Checkpoints(folder)) as checkpoints:
        step = checkpoints.latest_step()
    mirror = Mirror(folder)
    mirror.local.mkdir()
    try:
        mirror.fetch(step, ["params", "optimizer", "checksums"])
        return newest_arrays(mirror.local)
    finally:
        mirror.close()


def assert_same(workdir, local) -> None:
    """As `assert_same_run`, of a run in a store and a local one."""
    assert metrics(workdir) == metrics(local)
    names = sorted(
        str(path.relative_to(local))
        for pattern in ("completions/*.jsonl", "eval/*/*.json*")
        for path in local.glob(pattern)
    )
    assert names
    for name in names:
        mine, theirs = ((folder / name).read_text() for folder in (workdir, local))
        assert mine == theirs, name
    for mine, theirs in zip(arrays_of(workdir), newest_arrays(local / "checkpoints"), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_run_in_a_store_with_faults_that_dies_and_goes_on_ends_as_a_local_one(
    faulty, local, tmp_path
):
    with crash_after(60):  # in SFT
        run_tiny(faulty, cache=tmp_path / "cache")
    with crash_after(5, having="reward"):
        run_tiny(faulty, cache=tmp_path / "cache")
    run_tiny(faulty, cache=tmp_path / "cache")
    assert Faulty.calls > 100
    assert_same(faulty, local)
    assert not (tmp_path / "cache" / "bases").exists()  # other hosts would not see it
    assert (faulty.parent / "cache" / "bases").is_dir()

    # What reads runs reads it too.
    assert "permix" in compare([faulty], faulty.parent / "comparison")
    assert (faulty.parent / "comparison" / "accuracy_by_persona.png").is_file()
    export(faulty, tmp_path / "exported")
    assert (tmp_path / "exported" / "model.safetensors").is_file()


def test_a_store_that_vanishes_ends_the_run_saved_and_it_goes_on_when_it_is_back(
    faulty, local, tmp_path, monkeypatch
):
    from permix_jax.train.log import MetricsLog

    write = MetricsLog.write

    def vanishing(self, row):
        write(self, row)
        if row["step"] == 5 and "reward" in row:
            Faulty.away = True

    monkeypatch.setenv("PERMIX_STORE_SECONDS", "0.01")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "write", vanishing)
        with pytest.raises(stores.StoreError, match="what is finished is kept, run again when"):
            run_tiny(faulty, cache=tmp_path / "cache")
    Faulty.away = False
    stores.store_of.cache_clear()  # as in a new process
    Faulty.calls = 0
    monkeypatch.delenv("PERMIX_STORE_SECONDS")
    run_tiny(faulty, cache=tmp_path / "cache")
    assert_same(faulty, local)


def start(address: str, folder, env: dict[str, str], program: str = "", *more: str):
    env = {**env, "PERMIX_CACHE": str(folder / "cache")}
    return train(CONFIG, f"--workdir={address}", *more, cwd=folder, env=env, program=program)


def test_a_run_in_s3_that_is_killed_goes_on_although_the_server_is_slow_and_fails(local, tmp_path):
    with s3_server("bucket", fails_every=25, slow_every=10) as (server, env):
        address = "s3://bucket/runs/run"
        fifth = strike(5, "SIGKILL", counted="'reward' in args[0]")
        assert start(address, tmp_path, env, fifth).returncode == -signal.SIGKILL
        ended = start(address, tmp_path, env)
        assert ended.returncode == 0, ended.stderr
        assert f"report: {address}/report.html" in ended.stdout
        assert server.requests > 100
        server.fails_every = server.slow_every = 0
        assert_same(place_of(address), local)


TWO = {
    "mesh.fsdp": 2,
    "sft.steps": 3,
    "train.steps": 3,
    "task.num_test": 4,
    "eval.personas": 2,
    "eval.kl_responses": 0,
    "rollout.halvings": 0,
}


def test_two_processes_save_in_s3_what_one_saves_in_a_folder(tmp_path):
    """Each writes its part of a checkpoint to a folder of its own, as hosts that share none do."""
    here = run_tiny(tmp_path / "here" / "run", cache=tmp_path / "here" / "cache", **TWO)
    fields = [f"--config.{field}={value}" for field, value in TWO.items()]
    with s3_server("bucket") as (_, env):
        two = [str(ROOT / "launch/local.py"), "--processes=2", str(ROOT / "launch/train.py")]
        ended = subprocess.run(
            [sys.executable, *two, CONFIG, *fields, "--workdir=s3://bucket/runs/run"],
            env=own_process(**env, PERMIX_CACHE=str(tmp_path / "cache"), XLA_FLAGS=""),
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert ended.returncode == 0, ended.stderr
        there = place_of("s3://bucket/runs/run")
        assert metrics(there) == metrics(here)
        for file in ("eval/3/completions.jsonl", "eval/3/stability.json", "completions/3.jsonl"):
            assert (there / file).read_bytes() == (here / file).read_bytes()
        marks = {path.name for path in (there / "checkpoints" / "3").glob("sent.*")}
        assert marks == {"sent.0-of-2", "sent.1-of-2"}
        mesh = make_mesh(2, 2, 2)
        policy, _ = build_policy(load_config("permix.py", "tiny", **TWO), tmp_path, mesh)
        mine, theirs = (
            load_params(folder / "checkpoints", policy.model, mesh, 3) for folder in (there, here)
        )
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(mine), jax.device_get(theirs))


def test_a_bucket_that_is_not_there_is_refused_in_one_line(tmp_path):
    with s3_server() as (_, env):
        ended = start("s3://nobody/run", tmp_path, env)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("error: s3://nobody/run/config.json: cannot write (")
    assert last.endswith("check the address, the credentials and the rights of the bucket")
    assert "Traceback" not in ended.stderr

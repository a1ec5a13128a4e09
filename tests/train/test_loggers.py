"""wandb and trackio: by stand-ins that record the calls, and for real where they are installed."""

import json
import logging
import os
import signal
import sqlite3
import struct
import subprocess
import sys
from contextlib import nullcontext
from types import ModuleType, SimpleNamespace

import pytest
from runs import ROOT

from permix_jax.core.files import write_rows
from permix_jax.train import loggers
from permix_jax.train.log import MetricsLog
from permix_jax.train.loggers import (
    COLUMNS,
    PERSONA_ROWS,
    TABLE_ROWS,
    TEXT_LENGTH,
    Chart,
    Logger,
    Loggers,
    open_trackio,
    open_wandb,
    require_installed,
    table_of,
)

RECORD = {"config": {"seed": 3, "train": {"steps": 9}}, "name": "permix", "preset": "tiny"}


def record(persona, number=0, completion="7"):
    rest = {"correct": 1.0, "reward": 1.0, "truncated": False}
    named = {"persona": persona, "problem": f"p{number}", "prompt": "3 + 4"}
    return named | {"completion": completion, "answer": "7"} | rest


# ---- the table ---------------------------------------------------------------------------------


def test_a_table_has_a_few_completions_of_every_persona_sorted():
    records = [record("poet", n) for n in range(9)] + [record(None), record("chef")]
    rows = table_of(records)
    assert [row[0] for row in rows] == ["chef", "none", *["poet"] * PERSONA_ROWS]
    assert [row[1] for row in rows[2:]] == ["p0", "p1", "p2", "p3"]
    assert rows[0] == ["chef", "p0", "3 + 4", "7", "7", 1.0, 1.0, False]
    assert len(rows[0]) == len(COLUMNS)
    assert table_of([]) == []


def test_a_table_is_bounded_and_leaves_out_second_rows_first():
    records = [record(f"persona {p:02}", n) for p in range(40) for n in range(8)]
    rows = table_of(records)
    assert len(rows) == TABLE_ROWS == 64
    assert len({row[0] for row in rows}) == 40
    [long] = table_of([record("poet", completion="x" * 5000)])
    assert long[3] == "x" * TEXT_LENGTH


# ---- the charts of a run, over its starts ------------------------------------------------------


class Service:
    """Stands in for a service: keeps what it gets, by step; `fails` at these calls.

    Without `keeps` it begins anew at every start, as wandb does offline.
    """

    def __init__(self, keeps: bool, fails=()):
        self.keeps, self.fails, self.charts, self.sent, self.calls = keeps, fails, [], [], []

    def open(self, chart: Chart) -> Logger:
        self.charts.append(chart)
        self._call("open")
        self.sent = self.sent if self.keeps else []
        last = max((step for step, _ in self.sent), default=0)
        return Logger(
            last,
            "there",
            lambda step, values: self._call("log") or self.sent.append((step, values)),
            lambda columns, rows: [dict(zip(columns, row, strict=True)) for row in rows],
            lambda path: self._call(f"report {path.name}"),
            lambda status: self._call(f"finish {status}"),
        )

    def _call(self, call: str) -> None:
        self.calls.append(call)
        if call in self.fails:
            raise OSError("the service is\n  not there")

    @property
    def steps(self) -> list[int]:
        return [step for step, _ in self.sent]


@pytest.fixture
def start(tmp_path, monkeypatch):
    """Starts a run that goes on from `done`, and writes the rows of `steps`."""
    (tmp_path / "config.json").write_text(json.dumps(RECORD))

    def one(done, steps, error=None, **services):
        for name, service in services.items():
            monkeypatch.setitem(loggers.SERVICES, name, service.open)
        with pytest.raises(error) if error else nullcontext(), Loggers(services, tmp_path) as sent:
            log = MetricsLog(tmp_path, done, tensorboard=False, loggers=sent)
            for step in steps:
                if step % 2:
                    write_rows(tmp_path / "completions" / f"{step}.jsonl", [record("poet", step)])
                    sent.completions([record("poet", step)])
                log.write({"step": step, "loss": step / 4})
            log.close()
            if error:
                raise error("power cut")
            sent.report(tmp_path / "report.html")

    return one


def test_a_service_gets_the_config_the_metrics_the_tables_and_the_report(start, tmp_path):
    start(0, [1, 2], wandb=(service := Service(keeps=True)))
    [chart] = service.charts
    assert chart.config["seed"] == 3 and chart.config["train"] == {"steps": 9}
    assert chart.config["run"]["preset"] == "tiny"
    assert (chart.name, chart.folder) == (tmp_path.name, tmp_path)
    assert [values["loss"] for _, values in service.sent] == [0.25, 0.5]
    assert [len(values.get("completions", ())) for _, values in service.sent] == [1, 0]
    assert service.sent[0][1]["completions"][0]["persona"] == "poet"
    assert "step" not in service.sent[0][1]
    assert service.calls == ["open", "log", "log", "report report.html", "finish 0"]
    assert not (tmp_path / "tensorboard").exists()


@pytest.mark.parametrize("keeps", [True, False])
def test_steps_that_are_done_again_do_not_stand_twice(start, keeps):
    service = Service(keeps)
    start(0, [1, 2, 3, 4, 5], RuntimeError, wandb=service)
    start(2, [3], RuntimeError, wandb=service)  # metrics.jsonl knows no more of 4 and 5
    start(2, [3, 4, 5, 6, 7], wandb=service)
    assert service.steps == [1, 2, 3, 4, 5, 6, 7]
    assert [step for step, values in service.sent if "completions" in values] == [1, 3, 5, 7]
    assert len({chart.id for chart in service.charts}) == 1
    assert [call for call in service.calls if "finish" in call] == [
        "finish 1",
        "finish 1",
        "finish 0",
    ]


def test_a_chart_gets_the_steps_that_it_lacks(start):
    start(0, [1, 2, 3])
    service = Service(keeps=True)
    start(3, [4, 5], RuntimeError, wandb=service)  # it was added later
    assert service.steps == [1, 2, 3, 4, 5]
    del service.sent[3:]  # a kill took them on their way
    start(4, [5, 6], wandb=service, trackio=(new := Service(keeps=False)))
    assert service.steps == [1, 2, 3, 4, 5, 6]
    assert new.steps == [1, 2, 3, 4, 5, 6]
    [first, *_] = new.sent
    assert first[1]["completions"][0]["problem"] == "p1"


@pytest.mark.parametrize("call", ["open", "log", "report report.html", "finish 0"])
def test_an_error_of_a_service_is_said_once_and_the_run_goes_on(start, tmp_path, caplog, call):
    caplog.set_level(logging.WARNING)
    logging.getLogger("permix_jax").propagate = True
    broken, sound = Service(keeps=True, fails=(call,)), Service(keeps=True)
    start(0, [1, 2, 3], wandb=broken, trackio=sound)
    assert sound.steps == [1, 2, 3] and sound.calls[-1] == "finish 0"
    assert broken.calls.count(call) == 1 and broken.calls[-1] == call
    [said] = caplog.messages
    assert said == (
        "wandb: the service is not there; the run goes on without it (metrics.jsonl has all)"
    )
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3


def test_only_the_main_process_sends(start, tmp_path, monkeypatch):
    monkeypatch.setattr(loggers, "is_main", lambda: False)
    start(0, [1], wandb=(service := Service(keeps=True)))
    assert service.calls == [] and not (tmp_path / "loggers.json").exists()


def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    for name in ("wandb", "trackio"):
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / name).mkdir()  # of a run in this folder; it is no package
        said = f"train.loggers has '{name}', which needs a package: pip install -e '.[{name}]'"
        with pytest.raises(ImportError) as raised:
            require_installed(["tensorboard", name])
        assert str(raised.value).startswith(said)
    require_installed(["tensorboard"])


# ---- what is asked of wandb and trackio, by modules that stand in for them ---------------------


def wandb_module(mode, logged_in=True, starting_step=0):
    calls = []
    run = SimpleNamespace(
        starting_step=starting_step,
        url="https://example.com/run",
        log=lambda values, step: calls.append(("log", step, values)),
        log_artifact=lambda artifact: calls.append(("artifact", artifact.name, artifact.files)),
        finish=lambda exit_code: calls.append(("finish", exit_code)),
    )

    def artifact(name, type):
        made = SimpleNamespace(name=name, files=[])
        made.add_file = made.files.append
        return made

    module = ModuleType("wandb")
    module.setup = lambda: SimpleNamespace(settings=SimpleNamespace(mode=mode))
    module.login = lambda prompt, verify: logged_in
    module.Settings = dict
    module.init = lambda **asked: calls.append(("init", asked)) or run
    module.Artifact = artifact
    module.Table = lambda columns, rows, allow_mixed_types: (columns, rows)
    return module, calls


def chart(tmp_path):
    return Chart("0a1b2c3d", "permix", {"seed": 3}, tmp_path)


@pytest.mark.parametrize(
    ("mode", "starting_step", "last"), [("online", 0, -1), ("online", 6, 5), ("offline", 0, 0)]
)
def test_wandb_resumes_the_run_of_the_chart(tmp_path, monkeypatch, mode, starting_step, last):
    module, calls = wandb_module(mode, starting_step=starting_step)
    monkeypatch.setitem(sys.modules, "wandb", module)
    logger = open_wandb(chart(tmp_path))
    assert logger.last == last
    logger.log(7, {"loss": 0.5})
    logger.report(tmp_path / "report.html")
    logger.finish(1)
    (_, asked), *others = calls
    assert (asked["id"], asked["name"], asked["resume"]) == ("0a1b2c3d", "permix", "allow")
    assert asked["settings"]["console"] == "off" and asked["config"] == {"seed": 3}
    assert others == [
        ("log", 7, {"loss": 0.5}),
        ("artifact", "report-0a1b2c3d", [str(tmp_path / "report.html")]),
        ("finish", 1),
    ]


def test_wandb_without_a_login_is_refused_before_it_asks(tmp_path, monkeypatch):
    module, calls = wandb_module("online", logged_in=False)
    monkeypatch.setitem(sys.modules, "wandb", module)
    with pytest.raises(RuntimeError, match="nobody is logged in; run 'wandb login', or set WANDB_"):
        open_wandb(chart(tmp_path))
    assert calls == []


@pytest.mark.parametrize(("told", "last"), [(None, 0), (5, 5)])
def test_trackio_finds_the_run_by_name_and_id(tmp_path, monkeypatch, capsys, told, last):
    calls = []

    def init(*named, **asked):
        print("* Created new run")
        calls.append((named, asked["resume"]))
        return SimpleNamespace(
            _initial_last_step=told,
            log=lambda values, step: calls.append((step, values)),
            log_artifact=lambda path, name, type: calls.append((path.name, name, type)),
        )

    module = ModuleType("trackio")
    module.init, module.finish = init, lambda: calls.append("finish")
    monkeypatch.setitem(sys.modules, "trackio", module)
    logger = open_trackio(chart(tmp_path))
    assert logger.last == last
    logger.log(6, {"loss": 0.5})
    logger.report(tmp_path / "report.html")
    logger.finish(0)
    report = ("report.html", "report-0a1b2c3d", "report")
    named = ("permix_jax", "permix-0a1b2c3d")
    assert calls == [(named, "allow"), (6, {"loss": 0.5}), report, "finish"]
    assert capsys.readouterr().out == ""


# ---- for real, without a network ---------------------------------------------------------------

STARTED = """
import json, os, signal, sys
from pathlib import Path
from permix_jax.core.files import write_rows
from permix_jax.train.log import MetricsLog
from permix_jax.train.loggers import Loggers
name, workdir, done, last, killed = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
record = {"persona": "poet", "problem": "p", "prompt": "3 + 4", "completion": "7",
          "answer": "7", "correct": None, "reward": 1.0, "truncated": False}
with Loggers([name], workdir) as loggers:
    log = MetricsLog(workdir, done, loggers=loggers)
    for step in range(done + 1, last + 1):
        rows = [record, record | {"persona": None, "correct": 1.0}]
        write_rows(workdir / "completions" / f"{step}.jsonl", rows)
        loggers.completions(rows)
        log.write({"step": step, "loss": step / 4, "accuracy": float("nan")})
    log.close()
    if killed:
        os.kill(os.getpid(), signal.SIGKILL)
    (workdir / "report.html").write_text("<p>done</p>")
    loggers.report(workdir / "report.html")
"""


def start_for_real(name, workdir, *numbers):
    """Runs STARTED in a process that has no network to use, nor a login."""
    env = {**os.environ, "PYTHONPATH": str(ROOT), "HOME": str(workdir), "NETRC": "/none"}
    env |= {"WANDB_MODE": "offline", "TRACKIO_DIR": str(workdir / "trackio")}
    env |= {"JAX_PLATFORMS": "cpu", "WANDB_API_KEY": ""}
    command = [sys.executable, "-c", STARTED, name, str(workdir), *map(str, numbers)]
    ended = subprocess.run(command, env=env, capture_output=True, text=True)
    assert ended.returncode == (-signal.SIGKILL if numbers[-1] else 0), ended.stderr
    assert "goes on without it" not in ended.stderr
    return ended


def wandb_records(file):
    """The records of an offline run: LevelDB's log format behind a header of seven bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    content, at, whole = file.read_bytes(), 7, b""
    while at + 7 <= len(content):
        if (left := 32768 - at % 32768) < 7:  # no header fits into the rest of a block
            at += left
            continue
        size, kind = struct.unpack_from("<HB", content, at + 4)
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(whole)
            whole = b""


def test_wandb_offline_keeps_one_run_over_a_kill(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install -e '.[wandb]'")
    (tmp_path / "config.json").write_text(json.dumps(RECORD))
    start_for_real("wandb", tmp_path, 0, 5, 1)  # killed after step 5; its checkpoint is of step 3
    start_for_real("wandb", tmp_path, 3, 7, 0)
    first, last = sorted(tmp_path.glob("wandb/offline-run-*/*.wandb"))
    assert first.name == last.name and (tmp_path / "wandb/latest-run").resolve() == last.parent
    steps, artefacts, losses = [], set(), []
    for found in wandb_records(last):
        if found.HasField("history"):
            items = {i.key or i.nested_key[0]: i.value_json for i in found.history.item}
            steps.append(found.history.step.num)
            losses.append(float(items["loss"]))
        elif found.HasField("artifact"):
            artefacts.add((found.artifact.name, found.artifact.type))
    # A kill takes what wandb has not written yet, so the last start has the whole run.
    assert steps == [1, 2, 3, 4, 5, 6, 7] and losses == [step / 4 for step in steps]
    run_id = json.loads((tmp_path / "loggers.json").read_text())["id"]
    assert last.name == f"run-{run_id}.wandb" and (f"report-{run_id}", "report") in artefacts
    tables = last.parent.glob("files/media/table/completions_*.json")
    rows = [json.loads(path.read_text())["data"] for path in tables]
    assert len(rows) == 7 and [row[0] for row in rows[0]] == ["none", "poet"]


def test_trackio_keeps_one_run_over_a_kill(tmp_path):
    pytest.importorskip("trackio", reason="trackio is not installed: pip install -e '.[trackio]'")
    (tmp_path / "config.json").write_text(json.dumps(RECORD))
    start_for_real("trackio", tmp_path, 0, 5, 1)
    start_for_real("trackio", tmp_path, 3, 7, 0)
    with sqlite3.connect(tmp_path / "trackio" / "permix_jax.db") as base:
        rows = base.execute("SELECT run_name, step, metrics FROM metrics ORDER BY id").fetchall()
        [(artefact,)] = base.execute("SELECT name FROM artifacts").fetchall()
    [name] = {run for run, *_ in rows}
    assert name.startswith(tmp_path.name) and artefact == f"report-{name[-8:]}"
    metrics = {step: json.loads(text) for _, step, text in rows}
    assert [step for _, step, _ in rows] == [1, 2, 3, 4, 5, 6, 7]
    assert [metrics[step]["loss"] for step in metrics] == [step / 4 for step in metrics]
    assert [row["persona"] for row in metrics[7]["completions"]["_value"]] == ["none", "poet"]


def test_wandb_without_a_login_says_so_once_and_the_run_goes_on(tmp_path):
    pytest.importorskip("wandb", reason="wandb is not installed: pip install -e '.[wandb]'")
    (tmp_path / "config.json").write_text(json.dumps(RECORD))
    env = {name: x for name, x in os.environ.items() if not name.startswith("WANDB_")}
    env |= {"PYTHONPATH": str(ROOT), "HOME": str(tmp_path), "NETRC": str(tmp_path / "none")}
    command = [sys.executable, "-c", STARTED, "wandb", str(tmp_path), "0", "3", "0"]
    ended = subprocess.run(command, env=env | {"JAX_PLATFORMS": "cpu"}, capture_output=True,
                           text=True, stdin=subprocess.DEVNULL)  # fmt: skip
    assert ended.returncode == 0
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    [said] = [line for line in ended.stderr.splitlines() if "goes on" in line]
    assert said.startswith("wandb: nobody is logged in; run 'wandb login', or set WANDB_MODE=offl")

import json
import os
import signal
import subprocess
import sys
import threading
from contextlib import closing

import pytest

from permix_jax.core.problem import Undecided
from permix_jax.rewards import pool as pool_module
from permix_jax.rewards.pool import ERROR, NO_TIME, TIMEOUT, Pool

PATIENCE = 60.0  # of the tests, never reached
# A worker that obeys: the answer says what to do.
OBEDIENT = """
import json, os, sys, time
print(json.dumps({"ready": True}), flush=True)
served = 0
for line in sys.stdin:
    answer = json.loads(line)["answer"]
    served += 1
    if answer == "hang":
        time.sleep(1000)
    if answer == "whisper":
        print("no end of a line", end="", flush=True)
        time.sleep(1000)
    if answer == "die":
        os._exit(1)
    if answer == "babble":
        print("no JSON", flush=True)
    if answer == "invent":
        print('{"verdict": "maybe"}', flush=True)
    if answer == "complain":
        print("x" * 100_000, file=sys.stderr, flush=True)
    verdict = {"yes": True, "count": served > 1}.get(answer, False)
    print(json.dumps({"verdict": verdict}), flush=True)
"""


@pytest.fixture
def obedient(monkeypatch):
    """Makes pools of obedient workers, and closes them."""
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, "-c", OBEDIENT))
    pools = []

    def make(workers=1, item_seconds=PATIENCE):
        pools.append(Pool(workers, item_seconds))
        return pools[-1]

    yield make
    for pool in pools:
        pool.close()


def pairs(*answers):
    return [Undecided(answer, "") for answer in answers]


def processes(pool):
    return [worker.process for worker in pool._workers]


def test_verdicts_come_in_order(obedient):
    pool = obedient(workers=2)
    told = pool.grade(pairs("yes", "no", "complain", "yes"), PATIENCE)
    assert told == [True, False, False, True]
    assert pool.grade([], PATIENCE) == []


@pytest.mark.parametrize(
    ("order", "verdict"),
    [("hang", TIMEOUT), ("whisper", TIMEOUT), ("die", ERROR), ("babble", ERROR), ("invent", ERROR)],
)
def test_a_worker_that_fails_is_replaced(obedient, order, verdict):
    pool = obedient(item_seconds=0.3 if verdict == TIMEOUT else PATIENCE)
    pool.grade([], PATIENCE)
    (first,) = processes(pool)
    assert pool.grade(pairs(order), PATIENCE) == [verdict]
    assert first.returncode is not None and first not in processes(pool)
    pool._item_seconds = PATIENCE
    assert pool.grade(pairs("yes"), PATIENCE) == [True]


def test_a_killed_worker_is_replaced(obedient):
    pool = obedient()
    pool.grade([], PATIENCE)
    (first,) = processes(pool)
    os.kill(first.pid, signal.SIGKILL)
    assert pool.grade(pairs("yes", "yes"), PATIENCE) == [ERROR, True]


def test_workers_are_recycled(obedient, monkeypatch):
    monkeypatch.setattr(pool_module, "MAX_SERVED", 2)
    # "count" is true of a worker's second item only.
    verdicts = obedient().grade(pairs(*["count"] * 5), PATIENCE)
    assert verdicts == [False, True, False, True, False]


def test_a_batch_has_a_deadline(obedient):
    pool = obedient()
    assert pool.grade(pairs("yes", "hang", "yes"), 0.5) == [True, NO_TIME, NO_TIME]
    assert pool.grade(pairs("yes"), PATIENCE) == [True]


def test_closing_leaves_neither_processes_nor_threads(obedient):
    before = set(threading.enumerate())
    pool = obedient(workers=2)
    pool.grade(pairs("yes"), PATIENCE)
    ended = processes(pool)
    pool.close()
    pool.close()
    assert len(ended) == 2 and all(process.returncode is not None for process in ended)
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError, match="the verifier is closed"):
        pool.grade(pairs("yes"), PATIENCE)


@pytest.mark.parametrize("answers", [["hang"], ["hang"] * 5])
def test_closing_ends_a_batch_that_is_under_way(obedient, answers):
    pool = obedient(workers=2)
    pool.grade([], PATIENCE)
    closer = threading.Timer(0.1, pool.close)
    closer.start()
    with pytest.raises(RuntimeError, match="the verifier is closed"):
        pool.grade(pairs(*answers), PATIENCE)
    closer.join()


def test_closing_ends_the_wait_for_a_worker_that_is_not_ready(monkeypatch):
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, "-c", "input()"))
    pool = Pool(1, PATIENCE)
    closer = threading.Timer(0.1, pool.close)
    closer.start()
    with pytest.raises(RuntimeError, match="the verifier is closed"):
        pool.grade(pairs("yes"), PATIENCE)
    closer.join()


def test_workers_that_cannot_start_are_an_error_not_a_hang(monkeypatch):
    failing = "import json; print(json.dumps({'failed': 'ImportError: no sympy'}))"
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, "-c", failing))
    with closing(Pool(2, PATIENCE)) as pool:
        for _ in range(2):
            with pytest.raises(RuntimeError, match="can be started: ImportError: no sympy"):
                pool.grade(pairs("yes"), PATIENCE)


def test_a_program_that_does_not_exist_is_an_error_not_a_hang(obedient, monkeypatch):
    pool = obedient()
    pool.grade([], PATIENCE)
    monkeypatch.setattr(pool_module, "_COMMAND", ("/no/such/program",))
    for _ in range(2):  # it cannot be replaced
        with pytest.raises(OSError, match="No such file"):
            pool.grade(pairs("die"), PATIENCE)
    with pytest.raises(OSError, match="No such file"):
        Pool(1, PATIENCE)


def nasty():
    """Fifty expressions that pass the guards or just do not, each with another expression."""
    shapes = [
        r"\sin({})^{{60}}", "({}+1)^{{{}}}", r"\frac{{1}}{{{}-{}}}", r"\sqrt[7]{{{}+\sqrt{{{}}}}}",
        r"|{}|^{{{}}}", r"\tan\tan\tan {}", "({}!)!", r"9^{{9^{{{}}}}}", r"\log_{{{}}}({}+\ln {})",
        r"\binom{{2000}}{{{}}}",
    ]  # fmt: skip
    inners = ["x", r"\ln(x+\sin y)", "999", r"\pi^{x^y}", r"\frac{x+y}{z-\cos w}"]
    for shape in shapes:
        for inner in inners:
            yield Undecided(shape.format(*[inner] * shape.count("{}")), r"\cos x+\ln y")


def test_real_workers_survive_nasty_expressions_within_their_deadlines():
    with closing(Pool(2, item_seconds=2.0)) as pool:
        verdicts = pool.grade([*nasty(), Undecided(r"\ln 2+\ln 3", r"\ln 6")], PATIENCE)
        assert set(verdicts[:-1]) <= {False, TIMEOUT, ERROR} and verdicts[-1] is True


def test_a_worker_ends_with_its_stdin_even_when_it_is_busy():
    command = [sys.executable, "-m", "permix_jax.rewards.worker"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes) as worker:
        assert json.loads(worker.stdout.readline()) == {"ready": True}
        inner = r"(\sin x+\cos x+\tan x+\ln x)^{4}"
        hard = {"answer": rf"\sin^2({inner})", "gold": rf"1-\cos^2({inner})", "steps": 10**12}
        worker.stdin.write(json.dumps(hard) + "\n")
        worker.stdin.close()
        assert worker.wait(PATIENCE) == 0


def test_a_worker_knows_nothing_of_jax_and_may_not_write_or_start_anything(tmp_path):
    program = """
import json, os, sys
from permix_jax.rewards import symbolic, worker
print(json.dumps(sorted(m for m in sys.modules if m.split(".")[0] in ("jax", "jaxlib", "torch"))))
sys.addaudithook(worker._refuse)
refused = []
for act in ("open('f', 'w')", "open('f', 'r+')", "os.open('f', os.O_WRONLY | os.O_CREAT)",
            "os.open('f', os.O_RDWR)", "os.system('true')", "__import__('socket').socket()",
            "__import__('subprocess').run(['true'])", "os.remove('f')", "os.rename('f', 'g')"):
    try:
        exec(act)
    except PermissionError:
        refused.append(act)
print(len(refused), symbolic.equivalent("\\\\ln 2+\\\\ln 3", "\\\\ln 6"), len(open("f").read()))
"""
    (tmp_path / "f").write_text("kept")
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.splitlines() == ["[]", "9 True 4"], done.stderr

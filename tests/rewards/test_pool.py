import json
import os
import signal
import subprocess
import sys
import threading
import time

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
    if answer == "die":
        os._exit(1)
    if answer == "babble":
        print("no JSON", flush=True)
    if answer == "complain":
        print("x" * 100_000, file=sys.stderr, flush=True)
    print(json.dumps({"verdict": answer == "yes" if answer != "count" else served > 1}), flush=True)
"""


@pytest.fixture
def obedient(monkeypatch):
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, "-c", OBEDIENT))


def pairs(*answers):
    return [Undecided(answer, "") for answer in answers]


def alive(pid):
    """Whether a process runs; a zombie, which nobody has waited for, counts."""
    return os.path.exists(f"/proc/{pid}") if os.path.exists("/proc/self") else _signalled(pid)


def _signalled(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def wait_for(condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


def test_verdicts_come_in_order(obedient):
    with Pool(2, item_seconds=PATIENCE, tasks_per_worker=100) as pool:
        assert pool.grade(pairs("yes", "no", "complain", "yes"), PATIENCE) == [
            True,
            False,
            False,
            True,
        ]
        assert pool.grade([], PATIENCE) == []


@pytest.mark.parametrize(
    ("order", "verdict"), [("hang", TIMEOUT), ("die", ERROR), ("babble", ERROR)]
)
def test_a_worker_that_fails_is_replaced(obedient, order, verdict):
    with Pool(1, item_seconds=0.2, tasks_per_worker=100) as pool:
        pool.wait_until_ready()
        (first,) = pool.pids()
        assert pool.grade(pairs(order, "yes"), PATIENCE)[0] == verdict
        assert first not in pool.pids() and not alive(first)


def test_a_killed_worker_is_replaced(obedient):
    with Pool(1, item_seconds=PATIENCE, tasks_per_worker=100) as pool:
        pool.wait_until_ready()
        (first,) = pool.pids()
        os.kill(first, signal.SIGKILL)
        assert pool.grade(pairs("yes", "yes"), PATIENCE) == [ERROR, True]
        assert not alive(first)


def test_workers_are_recycled(obedient):
    with Pool(1, item_seconds=PATIENCE, tasks_per_worker=2) as pool:
        # "count" is true of a worker's second item only.
        verdicts = pool.grade(pairs(*["count"] * 5), PATIENCE)
        assert verdicts == [False, True, False, True, False]


def test_a_batch_has_a_deadline(obedient):
    with Pool(1, item_seconds=PATIENCE, tasks_per_worker=100) as pool:
        assert pool.grade(pairs("yes", "hang", "yes"), 0.5) == [True, NO_TIME, NO_TIME]
        assert pool.grade(pairs("yes"), PATIENCE) == [True]


def test_closing_leaves_neither_processes_nor_threads(obedient):
    before = set(threading.enumerate())
    pool = Pool(2, item_seconds=PATIENCE, tasks_per_worker=100)
    pool.wait_until_ready()
    wait_for(lambda: len(pool.pids()) == 2)
    pids = pool.pids()
    pool.close()
    pool.close()
    assert not any(map(alive, pids))
    assert set(threading.enumerate()) <= before
    with pytest.raises(RuntimeError, match="the verifier is closed"):
        pool.grade(pairs("yes"), PATIENCE)


def test_closing_ends_a_batch_that_is_under_way(obedient):
    pool = Pool(1, item_seconds=PATIENCE, tasks_per_worker=100)
    pool.wait_until_ready()
    closer = threading.Timer(0.1, pool.close)
    closer.start()
    with pytest.raises(RuntimeError, match="the verifier is closed"):
        pool.grade(pairs("hang"), PATIENCE)
    closer.join()


def test_workers_that_cannot_start_are_an_error_not_a_hang(monkeypatch):
    failing = "import json; print(json.dumps({'failed': 'ImportError: no sympy'}))"
    monkeypatch.setattr(pool_module, "_COMMAND", (sys.executable, "-c", failing))
    with Pool(1, item_seconds=PATIENCE, tasks_per_worker=100) as pool:
        with pytest.raises(RuntimeError, match="can be started: ImportError: no sympy"):
            pool.grade(pairs("yes"), PATIENCE)


def test_a_program_that_does_not_exist_is_an_error_not_a_hang(monkeypatch):
    monkeypatch.setattr(pool_module, "_COMMAND", ("/no/such/program",))
    with Pool(1, item_seconds=PATIENCE, tasks_per_worker=100) as pool:
        with pytest.raises(RuntimeError, match="No such file"):
            pool.grade(pairs("yes"), PATIENCE)


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
    with Pool(2, item_seconds=2.0, tasks_per_worker=1000) as pool:
        verdicts = pool.grade([*nasty(), Undecided(r"\ln 2+\ln 3", r"\ln 6")], PATIENCE)
        assert set(verdicts[:-1]) <= {False, TIMEOUT, ERROR} and verdicts[-1] is True


def start_worker():
    return subprocess.Popen(
        [sys.executable, "-m", "permix_jax.rewards.worker"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def test_a_worker_ends_with_its_stdin_even_when_it_is_busy():
    with start_worker() as worker:
        assert json.loads(worker.stdout.readline()) == {"ready": True}
        inner = r"(\sin x+\cos x+\tan x+\ln x)^{4}"
        hard = {"answer": rf"\sin^2({inner})", "gold": rf"1-\cos^2({inner})", "steps": 10**12}
        worker.stdin.write(json.dumps(hard) + "\n")
        worker.stdin.close()
        assert worker.wait(PATIENCE) == 0


def test_a_worker_knows_nothing_of_jax_and_may_not_write_or_start_anything():
    program = """
import json, sys
from permix_jax.rewards import symbolic, worker
print(json.dumps(sorted(m for m in sys.modules if m.split(".")[0] in ("jax", "jaxlib", "torch"))))
sys.addaudithook(worker._refuse)
refused = []
for act in ("open('f', 'w')", "__import__('os').system('true')", "__import__('socket').socket()",
            "__import__('subprocess').run(['true'])", "__import__('os').remove('f')"):
    try:
        exec(act)
    except PermissionError:
        refused.append(act)
print(len(refused), symbolic.equivalent("\\\\ln 2+\\\\ln 3", "\\\\ln 6"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=PATIENCE
    )
    assert done.stdout.splitlines() == ["[]", "5 True"], done.stderr

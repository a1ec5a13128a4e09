"""One grading process: python -m permix_jax.rewards.worker

Reads {"answer": ..., "gold": ..., "steps": n} from stdin, one JSON object a line, and answers each
with {"verdict": true, false, "timeout" (more than n steps) or "error"}; its first line is
{"ready": true}, or {"failed": why}. It ends with its stdin. It never imports JAX, holds its memory
to a limit, and once it is ready writes no files, starts no processes and uses no network.
"""

import json
import os
import queue
import resource
import sys
import threading

from permix_jax.rewards.steps import OutOfSteps, allow

MAX_BYTES = 2 << 30
# What is imported late, and tables that are made once, are not for the first pairs to pay for.
_WARM = (
    ("\\sin 2x", "2\\sin x\\cos x"), ("\\sqrt{3+2\\sqrt{2}}", "1+\\sqrt{2}"), ("2", "3"),
    ("\\frac{\\ln 3}{\\ln 2}", "\\log_2 3"), ("|2-x|", "|x-2|"),
)  # fmt: skip
_HARMLESS = (
    "import", "compile", "exec", "marshal.", "object.", "sys._getframe", "sys.excepthook",
    "sys.unraisablehook", "sys.settrace", "code.__new__", "builtins.id", "gc.", "cpython.",
    "open", "os.listdir", "os.scandir",  # for reading; sympy imports some of its modules late
)  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC


def main() -> None:
    output = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no message

    def say(**message: object) -> None:
        print(json.dumps(message), file=output, flush=True)

    try:
        resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, MAX_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        from permix_jax.rewards.symbolic import equivalent

        for answer, gold in _WARM:
            equivalent(answer, gold)
    except Exception as error:
        say(failed=f"{type(error).__name__}: {error}")
        sys.exit(1)
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    sys.addaudithook(_refuse)
    say(ready=True)
    while True:
        item = json.loads(lines.get())
        allow(item["steps"])
        try:
            verdict = equivalent(item["answer"], item["gold"])
        except OutOfSteps:
            verdict = "timeout"
        except Exception:  # RecursionError and MemoryError, too
            verdict = "error"
        say(verdict=verdict)


def _read(lines: queue.SimpleQueue) -> None:
    """Passes lines on; ends the process with its stdin, even in the midst of a long grading."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _refuse(event: str, arguments: tuple) -> None:
    """An audit hook: no file but for reading, no process, no network. A second lock."""
    writes = event == "open" and arguments[2] & _WRITING
    if writes or not event.startswith(_HARMLESS):
        raise PermissionError(f"a grading process has no use for {event}")


if __name__ == "__main__":
    main()

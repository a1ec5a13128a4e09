"""What the adapters of benchmarks/run.py share: JSON lines, phases with their peaks, a tokenizer.

Runs in each implementation's own environment, so it imports nothing but the standard library, and
`tokenizers` and `transformers`, which all of them have.

An adapter is started by the driver, reads one line, the work, and gets ready. Then it waits for
lines "warm-up" or "step", does that, and answers each with one line. It ends with its input.
"""

import ctypes
import gc
import json
import os
import sys
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

PAD, END = 0, 1  # token ids; no prompt holds them, and rows get END where the work says it


class Session:
    """The adapter's side of the conversation, and the clock of the phases of a step.

    work: the driver's first line, what `settings.Setting.work` makes.
    """

    def __init__(self):
        self.wanted = ""
        # Standard output is for the driver alone, whatever a library prints.
        self._answers = os.fdopen(os.dup(1), "w")
        os.dup2(2, 1)
        self.work = json.loads(sys.stdin.readline())

    def ready(self, **facts) -> None:
        """Tells the driver that all is loaded, and what is to be known of it."""
        self._answer(facts)

    def wait(self) -> str:
        """Starts the clock; `wanted` is "warm-up", "step", or "" at the end, and is returned."""
        self.wanted = sys.stdin.readline().strip()
        self._phases: dict[str, dict] = {}
        self._phase = None
        self.phase("rest")
        return self.wanted

    def phase(self, name: str) -> None:
        """Ends the phase that is, and begins the next. One that comes again is added up."""
        now = clocks()
        if self._phase is not None:
            found = self._phases.setdefault(
                self._phase, dict.fromkeys(now, 0.0) | {"peak_bytes": 0}
            )
            for clock in now:
                found[clock] += now[clock] - self._phase_begin[clock]
            found["peak_bytes"] = max(found["peak_bytes"], peak_bytes())
        reset_peak()
        self._phase, self._phase_begin = name, clocks()

    def in_phase(self, name: str, function: Callable) -> Callable:
        """The function, its calls being a phase."""

        def timed(*args, **kwargs):
            self.phase(name)
            try:
                return function(*args, **kwargs)
            finally:
                self.phase("rest")

        return timed

    def done(self, lengths: Sequence[int], **facts) -> None:
        """Answers with the seconds, those of all its cores together, and the peak memory of each
        phase, and the seconds of all.

        `lengths`: tokens of each row, end token included. Raises ValueError where they are not
        those of the work, for then it was not the step of the other implementations.
        """
        self.phase("rest")
        seconds = sum(found["seconds"] for found in self._phases.values())
        lengths, expected = [int(n) for n in lengths], self.work["lengths"]
        if self.wanted == "step" and lengths != expected:
            raise ValueError(f"rows ended after {lengths} tokens; the work says {expected}")
        self._answer({"seconds": seconds, "phases": self._phases, **facts})

    def _answer(self, message: dict) -> None:
        print(json.dumps(message), file=self._answers, flush=True)


def clocks() -> dict[str, float]:
    """Seconds that passed, and those of processor time that this process used."""
    return {"seconds": time.perf_counter(), "cpu_seconds": time.process_time()}


def reset_peak() -> None:
    """Makes the kernel forget the highest resident memory of this process so far (Linux).

    What is free but still resident, such as what a compiler left, is given back first.
    """
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")


def peak_bytes() -> int:
    """The highest resident memory since `reset_peak`."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def compile_seconds() -> Callable[[], float]:
    """Says for how long JAX has been tracing, lowering and compiling since it was last asked."""
    from jax import monitoring

    intervals: list[tuple[float, float]] = []

    def listen(event: str, seconds: float, **_) -> None:
        if event.startswith("/jax/core/compile/"):
            now = time.perf_counter()
            intervals.append((now - seconds, now))

    def since() -> float:
        total, end = 0.0, 0.0
        for start, stop in sorted(intervals):  # a program is traced while another one is
            total += max(0.0, stop - max(start, end))
            end = max(end, stop)
        intervals.clear()
        return total

    monitoring.register_event_duration_secs_listener(listen)
    return since


def reward(text: str) -> float:
    """0 or 1, as good as random."""
    return float(zlib.crc32(text.encode()) & 1)


def tokenizer(vocabulary: int):
    """A `transformers` tokenizer of the words w2, w3, ..., whose ids are these numbers."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from transformers import PreTrainedTokenizerFast

    words = {"<pad>": PAD, "<end>": END} | {f"w{i}": i for i in range(2, vocabulary)}
    built = Tokenizer(WordLevel(words, unk_token="<pad>"))
    built.pre_tokenizer = WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=built,
        pad_token="<pad>",
        eos_token="<end>",
        padding_side="left",
        chat_template="{% for m in messages %}{{ m['content'] }} {% endfor %}",
    )

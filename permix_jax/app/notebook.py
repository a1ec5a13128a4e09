"""For notebooks: names the device, trains with live curves, and shows figures and tables."""

import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import PIL.Image
from IPython.display import DisplayHandle, Image, Markdown, Pretty, display
from matplotlib.figure import Figure

from permix_jax.report.plots import training_curves
from permix_jax.report.tables import markdown_table
from permix_jax.train.log import read_rows

_DEVICES = "import jax; d = jax.devices(); print(d[0].platform, len(d), d[0].device_kind, sep='|')"
_DPI = 100
_SECONDS_BETWEEN_LOOKS = 2.0


def found_device() -> str:
    """A line that says which accelerator JAX finds, such as "found 1 x TPU v5 lite (TPU)".

    Another process asks JAX, because the process that asks holds the TPU, which the notebook's runs
    need, until it ends. Raises RuntimeError, with JAX's last line, where it finds none.
    """
    asked = subprocess.run([sys.executable, "-c", _DEVICES], capture_output=True, text=True)
    if asked.returncode:
        said = _last_line(asked.stderr)
        raise RuntimeError(f"JAX finds no device: {said}; install jax[tpu], jax[cuda12] or jax")
    platform, number, kind = asked.stdout.strip().splitlines()[-1].split("|")
    if platform == "cpu":
        return "found no TPU and no GPU: runs on the CPU"
    return f"found {number} x {kind} ({platform.upper()})"


def train_live(folder: str | Path, runs: Mapping[str, Sequence[str]]) -> list[Path]:
    """Runs `launch/train.py` for one run after the other, and draws the curves of all meanwhile.

    A TPU belongs to one process at a time. A run that was begun goes on, and a finished one only
    reports. Interrupting the cell stops the run, which saves. Call it in the checkout's root.

    `folder` gets the workdirs and logs; `runs` has the name of each run, and of its workdir, and
    its arguments. Returns the workdirs. Raises RuntimeError, with the run's own line, where one
    fails.
    """
    status, curves, shown = DisplayHandle(), DisplayHandle(), 0
    workdirs = [Path(folder, name) for name in runs]
    status.display(Pretty(""))
    curves.display(Pretty(""))
    for workdir, arguments in zip(workdirs, runs.values(), strict=True):
        command = [sys.executable, "launch/train.py", *arguments, f"--workdir={workdir}"]
        log, running = workdir.with_suffix(".log"), True
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            while running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(_SECONDS_BETWEEN_LOOKS)
                    running = False
                status.update(Pretty(_said(log)))
                metrics = {w.name: read_rows(w / "metrics.jsonl") for w in workdirs}
                if (rows := sum(map(len, metrics.values()))) > shown:
                    shown = rows
                    curves.update(_image(training_curves(metrics)))
        finally:
            process.terminate()  # if the cell was interrupted; the run saves
            process.wait()
        if process.returncode:
            raise RuntimeError(f"{workdir.name} failed: {_said(log)} (all it said is in {log})")
    status.update(Pretty(f"trained and evaluated: {', '.join(map(str, workdirs))}"))
    return workdirs


def show(figure: Figure) -> None:
    """Displays a figure, with any backend of Matplotlib."""
    display(_image(figure))


def show_table(table: Mapping) -> None:
    """Displays a table of `report/tables.py`."""
    display(Markdown(markdown_table(table)))


def _said(log: Path) -> str:
    return _last_line(log.read_text("utf-8", errors="replace"))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1].removeprefix("error: ")


def _image(figure: Figure) -> Image:
    """A PNG of 256 colours: a third of the size, because notebooks are committed with figures."""
    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    PIL.Image.open(drawn).convert("RGB").quantize(256).save(reduced, format="png", optimize=True)
    return Image(reduced.getvalue())

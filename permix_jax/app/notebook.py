"""What the notebooks share: the device, runs that are followed while they train, and figures."""

import io
import subprocess
import sys
from collections.abc import Mapping, Sequence
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
    """The line that says which accelerator JAX finds, such as "found 1 x TPU v5 lite (TPU)".

    JAX is asked in a process of its own: whoever asks holds a TPU until it ends, and a run that
    the notebook starts could not have it.

    Raises RuntimeError, with JAX's last line, where it finds none.
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
    """Runs `launch/train.py` for one run after the other, and draws the curves of all as they go.

    One after the other, because a TPU belongs to one process at a time. A run that is there is
    gone on with, and a finished one just reports. Interrupting the cell stops the run, which saves.

    Args:
      folder: where the workdirs and logs are to be. This is called in the checkout's root.
      runs: name, also of its workdir -> arguments.

    Returns:
      The workdirs.

    Raises RuntimeError, with the run's own line, where one fails.
    """
    status, curves = DisplayHandle(), DisplayHandle()
    workdirs = [Path(folder, name) for name in runs]
    status.display(Pretty(""))
    curves.display(Pretty(""))
    for workdir, arguments in zip(workdirs, runs.values(), strict=True):
        command = [sys.executable, "launch/train.py", *arguments, f"--workdir={workdir}"]
        log = workdir.with_suffix(".log")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("w") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output)
        try:
            _follow(process, log, workdirs, status, curves)
        finally:
            process.terminate()  # of a cell that was interrupted: the run saves
            process.wait()
        if process.returncode:
            raise RuntimeError(f"{workdir.name} failed: {_said(log)} (all it said is in {log})")
    status.update(Pretty(f"trained and evaluated: {', '.join(map(str, workdirs))}"))
    return workdirs


def show(figure: Figure) -> None:
    """Displays a figure, whatever backend Matplotlib has."""
    display(_image(figure))


def show_table(table: Mapping) -> None:
    """Displays a table of `report/tables.py`."""
    display(Markdown(markdown_table(table)))


def _follow(
    process: subprocess.Popen,
    log: Path,
    workdirs: Sequence[Path],
    status: DisplayHandle,
    curves: DisplayHandle,
) -> None:
    """Until the process ends: its last line, and the curves where there are new steps."""
    shown, running = 0, True
    while running:
        try:
            process.wait(_SECONDS_BETWEEN_LOOKS)
            running = False
        except subprocess.TimeoutExpired:
            pass
        status.update(Pretty(_said(log)))
        metrics = {w.name: read_rows(w / "metrics.jsonl") for w in workdirs}
        if (rows := sum(map(len, metrics.values()))) > shown:
            shown = rows
            curves.update(_image(training_curves(metrics)))


def _said(log: Path) -> str:
    return _last_line(log.read_text("utf-8", errors="replace"))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["it said nothing"])[-1].removeprefix("error: ")


def _image(figure: Figure) -> Image:
    """As a PNG of 256 colours, a third of the size: notebooks are committed with their figures."""
    drawn, reduced = io.BytesIO(), io.BytesIO()
    figure.savefig(drawn, format="png", dpi=_DPI)
    PIL.Image.open(drawn).convert("RGB").quantize(256).save(reduced, format="png", optimize=True)
    return Image(reduced.getvalue())

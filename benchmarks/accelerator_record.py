"""What benchmarks/accelerator.py writes: a JSON file and a report, both whole at any time."""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from permix_jax.core.files import write_json, write_text
from permix_jax.report.tables import markdown_table, table

TITLES = {
    "device": "The device",
    "parity": "The same as on a CPU",
    "speed": "Speed",
    "resume": "Kill and resume",
    "experiment": "The experiment",
}
# What a part calls for everything that it finds: a name, and its figures.
Tell = Callable[[str, Mapping[str, Any]], None]


@dataclass(frozen=True)
class Given:
    """What every part gets.

    weights: the folder that --prepare made, or None. scratch: a folder that is removed at the end.
    tiny: whether sizes are toy sizes. deadline: when a part has to be done, by time.time().
    platform: what the device part found: cpu, gpu or tpu; "" where it found nothing.
    """

    weights: Path | None
    scratch: Path
    tiny: bool = False
    deadline: float = float("inf")
    platform: str = ""

    def left(self) -> float:
        """Seconds to the deadline."""
        return self.deadline - time.time()

    def need_weights(self) -> Path:
        """The folder of weights; FileNotFoundError, in one line, where there are none."""
        remedy = "make the folder with `python benchmarks/accelerator.py --prepare=DIR` first"
        if self.weights is None:
            raise FileNotFoundError(f"--weights is not given; {remedy}")
        for name in ("config.json", "parity.npz"):
            if not (self.weights / name).is_file():
                raise FileNotFoundError(f"--weights={self.weights}: has no {name}; {remedy}")
        return self.weights

    def to_json(self) -> str:
        return json.dumps(
            {name: str(x) if isinstance(x, Path) else x for name, x in asdict(self).items()}
        )

    @classmethod
    def from_json(cls, text: str) -> "Given":
        fields = json.loads(text)
        paths = {name: Path(fields[name]) for name in ("weights", "scratch") if fields[name]}
        return cls(**{**fields, **paths})


class Record:
    """The content of DIR/accelerator.json: {"date", "parts": {part: {"state", "seconds",
    "found": {name: figures}}}}. Each change is written at once, the report too.

    A state is "waiting", "running", "done", or why the part did not come to its end.
    """

    def __init__(self, folder: Path, parts: Sequence[str]):
        self.path, self.report = folder / "accelerator.json", folder / "accelerator.md"
        waiting = {name: {"state": "waiting", "found": {}} for name in parts}
        self.content = {"date": time.strftime("%Y-%m-%d %H:%M"), "parts": waiting}
        self._write()

    @classmethod
    def read(cls, path: Path) -> "Record":
        """The record that another process wrote."""
        record = cls.__new__(cls)
        record.path, record.report = path, path.with_suffix(".md")
        record.content = json.loads(path.read_text("utf-8"))
        return record

    def found(self, part: str) -> dict[str, dict[str, Any]]:
        return self.content["parts"].get(part, {}).get("found", {})

    def error(self, part: str) -> str:
        """Why a part did not come to its end; "" if it did, or still runs."""
        state = self.content["parts"][part]["state"]
        return "" if state in ("waiting", "running", "done") else state

    def add(self, part: str, name: str, figures: Mapping[str, Any]) -> None:
        """Adds what a part found, or writes over what it found before by that name."""
        own = self.content["parts"][part]
        own["state"] = "running"
        own["found"][name] = dict(figures)
        self._write()

    def end(self, part: str, error: str = "", seconds: float | None = None) -> None:
        """Notes that a part has ended. Reads what its own process has written first."""
        self.content = json.loads(self.path.read_text("utf-8"))
        own = self.content["parts"][part]
        own["state"] = error or "done"
        if seconds is not None:
            own["seconds"] = round(seconds, 1)
        self._write()

    def _write(self) -> None:
        write_json(self.path, self.content)
        write_text(self.report, report_text(self.content))


def report_text(content: Mapping[str, Any]) -> str:
    """The report in Markdown. Things with the same figures share a table."""
    lines = [f"# Accelerator check, {content['date']}", ""]
    for name, part in content["parts"].items():
        seconds = f", {part['seconds']} s" if "seconds" in part else ""
        lines += [f"## {TITLES.get(name, name)}", "", f"{part['state']}{seconds}", ""]
        for columns, rows in _alike(part["found"]):
            names = [name.replace("_", " ") for name in columns]
            shown = table({"": "", **dict.fromkeys(names, "")}, rows)
            lines += [markdown_table(shown), ""]
    return "\n".join(lines)


def _alike(found: Mapping[str, Mapping[str, Any]]) -> list[tuple[tuple[str, ...], list[list[str]]]]:
    """(names of figures, rows of text) of neighbours that have the same figures."""
    tables: list[tuple[tuple[str, ...], list[list[str]]]] = []
    for name, figures in found.items():
        if not tables or tables[-1][0] != tuple(figures):
            tables.append((tuple(figures), []))
        tables[-1][1].append([name, *map(as_text, figures.values())])
    return tables


def as_text(value: Any) -> str:
    """A figure with three digits; a list with commas."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "-"}[value]
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, list | tuple):
        return ", ".join(map(as_text, value))
    return str(value)


def said(error: Exception) -> str:
    """What is wrong, in one line, with what to do where that is known."""
    text = " ".join(str(error).split())[:300]
    if "RESOURCE_EXHAUSTED" in text or isinstance(error, MemoryError):
        return f"too little memory on the device, or another process holds it: {text}"
    if any(sign in text for sign in ("already in use", "Unable to initialize", "CUDA_ERROR")):
        return f"the device cannot be opened; end the process that uses it, if any: {text}"
    return text if isinstance(error, OSError | ValueError) else f"{type(error).__name__}: {text}"

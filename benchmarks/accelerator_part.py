"""Runs one part of benchmarks/accelerator.py in this process, which the command starts."""

import importlib
import logging
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerator_record import Given, Record, as_text, said

_KEPT = 0.05  # of a part's time, to end before it is ended


def main() -> None:
    name, given, record, seconds = sys.argv[1:]
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.WARNING)
    deadline = time.time() + float(seconds) * (1 - _KEPT)
    given = replace(Given.from_json(given), deadline=deadline)
    if error := run_part(name, given, Record.read(Path(record))):
        sys.exit(bool(error))


def run_part(name: str, given: Given, record: Record) -> str:
    """Runs a part, which prints and records what it finds; returns why it failed, or "".

    A part is the function `measure(given, tell)` of the module accelerator_<part>.
    """
    found = record.found("device").get("device", {})
    given = replace(given, platform=found.get("platform", ""))

    def tell(what: str, figures: Mapping[str, Any]) -> None:
        shown = ", ".join(
            f"{key.replace('_', ' ')} {as_text(value)}" for key, value in figures.items()
        )
        print(f"  {what}: {shown}", flush=True)
        record.add(name, what, figures)

    try:
        if given.platform == "cpu" and name != "device" and not given.tiny:
            raise ValueError("there is no accelerator to measure, only a CPU")
        importlib.import_module(f"accelerator_{name}").measure(given, tell)
    except Exception as error:
        record.end(name, said(error))
        return said(error)
    return ""


if __name__ == "__main__":
    main()

"""How a step's time grows: python benchmarks/curves.py

Time of this project's rollout and update against batch, prompt length, completion length,
vocabulary and width, one of them varied at a time around one setting of a few layers, and the
exponent k of time = c x^k, fitted by least squares in logarithms. Peak memory of the update, too.
"""

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

from processes import Process
from ratios import OURS, spread
from run import IMPLEMENTATIONS
from settings import SMOLLM2, TINY_SETTINGS, Setting

from permix_jax.report.tables import text_table

BASE = Setting({**SMOLLM2, "num_hidden_layers": 4}, 4, 8, 128, 64)
AXES = {
    "batch": (16, 32, 64, 128),
    "prompt tokens": (64, 128, 256, 512),
    "completion tokens": (32, 64, 128, 256),
    "vocabulary": (12_288, 24_576, 49_152, 98_304),
    "width": (192, 384, 576, 1152),
}
TINY_AXES = {"batch": (4, 8), "vocabulary": (512, 1024)}
QUANTITIES = ("rollout", "update", "memory")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="steps of each point")
    parser.add_argument("--tiny", action="store_true", help="toy sizes: whether it runs at all")
    parser.add_argument("--out", type=Path, default=Path("curves.json"))
    args = parser.parse_args()
    base, axes = (TINY_SETTINGS["first"], TINY_AXES) if args.tiny else (BASE, AXES)
    try:
        found = measure_axes(base, axes, args.repeats)
    except RuntimeError as error:
        sys.exit(f"curves.py: {error}")
    print(table(found))
    args.out.write_text(json.dumps(found, indent=1))


def varied(base: Setting, axis: str, value: int) -> Setting:
    """The setting with another value on one axis. A width keeps the proportions of SmolLM2-135M:
    heads of 64, three query heads to a key head, and an MLP of 8/3 of it."""
    if axis == "batch":
        return replace(base, prompts=value // base.samples)
    if axis == "prompt tokens":
        return replace(base, prompt_tokens=value)
    if axis == "completion tokens":
        return replace(base, limit=value)
    if axis == "vocabulary":
        return replace(base, shape={**base.shape, "vocab_size": value})
    width = {
        "hidden_size": value,
        "intermediate_size": value * 8 // 3,
        "num_attention_heads": value // 64,
        "num_key_value_heads": value // 192,
    }
    return replace(base, shape={**base.shape, **width})


def measure_axes(base: Setting, axes: Mapping[str, Sequence[int]], repeats: int) -> dict:
    """By axis and value: median seconds of rollout and update, and the update's peak in bytes."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    known: dict[str, dict[str, float]] = {}
    for axis, values in axes.items():
        found[axis] = {}
        for value in values:
            setting = varied(base, axis, value)
            if repr(setting) not in known:  # the base is a point of every axis
                known[repr(setting)] = measure(setting, repeats)
            found[axis][value] = known[repr(setting)]
            print(axis, value, {k: f"{x:.3g}" for k, x in found[axis][value].items()}, flush=True)
    return found


def measure(setting: Setting, repeats: int) -> dict[str, float]:
    with closing(Process(IMPLEMENTATIONS[OURS].adapter, sys.executable)) as process:
        process.ask(json.dumps(setting.work()))
        process.ask("warm-up")
        phases = [process.ask("step")["phases"] for _ in range(repeats)]
    of = lambda phase, what: spread([each[phase][what] for each in phases]).median  # noqa: E731
    return {
        "rollout": of("rollout", "seconds"),
        "update": of("update", "seconds"),
        "memory": of("update", "peak_bytes"),
    }


def exponent(xs: Sequence[float], ys: Sequence[float]) -> float:
    """k of the line log y = log c + k log x that is nearest in least squares."""
    xs, ys = [math.log(x) for x in xs], [math.log(y) for y in ys]
    mean_x, mean_y = sum(xs) / len(xs), sum(ys) / len(ys)
    above = sum((x - mean_x) * (y - mean_y) for x, y in zip(xs, ys, strict=True))
    return above / sum((x - mean_x) ** 2 for x in xs)


def table(found: Mapping[str, Mapping[int, Mapping[str, float]]]) -> str:
    """A line for each axis and quantity: its values in order, and the exponent."""
    rows = []
    for axis, points in found.items():
        for what in QUANTITIES:
            ys = [point[what] for point in points.values()]
            shown = [f"{y / 1e9:.2f} GB" if what == "memory" else f"{y:.3g} s" for y in ys]
            k = exponent(list(points), ys)
            rows.append([axis, what, ", ".join(map(str, points)), ", ".join(shown), f"{k:.2f}"])
    return text_table(["axis", "", "values", "median", "exponent"], rows)


if __name__ == "__main__":
    main()

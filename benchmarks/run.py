"""Speed and memory beside the peers, on one machine: python benchmarks/run.py

GRPO steps of the same shape (settings.py) by this project, by Tunix, and by transformers and TRL on
PyTorch, each through its own trainer (peers/run_*.py say how), in f32 on the CPU. Each is a process
in an environment of its own, which is made at the first run and kept. They take turns, one step at
a time: ours, a peer's, ours, the other peer's, and so on. Prints a table for each setting: medians
with the lowest and highest, our ratios, and shares of what the machine could do (limits.py).
Everything that was measured is written to --out. More in docs/benchmarks.md.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from limits import Machine, least_seconds
from processes import Process, make_environment
from ratios import OURS, ratios, shares_of_limit, summarize, table
from settings import SETTINGS, TINY_SETTINGS, Setting

from permix_jax.app.workdir import cache_folder


class Implementation(NamedTuple):
    """title: in the table. adapter: in peers/. requirements: of its environment; (): this one."""

    title: str
    adapter: str
    requirements: tuple[str, ...]


IMPLEMENTATIONS = {
    OURS: Implementation("permix_jax", "run_permix.py", ()),
    "tunix": Implementation("Tunix", "run_tunix.py", ("google-tunix==0.1.7",)),
    "torch": Implementation("TRL", "run_trl.py", ("torch==2.13.0", "trl==1.16.0")),
}


def main() -> None:
    args = parse_args()
    os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # what was compiled before does not count
    try:
        pythons = {
            name: make_environment(args.venvs / name, IMPLEMENTATIONS[name].requirements)
            for name in args.only
        }
        result = {"machine": describe_machine(), "settings": {}}
        print("; ".join(f"{key}: {value}" for key, value in result["machine"].items()))
        settings = TINY_SETTINGS if args.tiny else SETTINGS
        for name in settings if args.setting == "both" else [args.setting]:
            print(f"\nsetting {name}: {settings[name].describe()}", flush=True)
            result["settings"][name] = compare(settings[name], pythons, args.repeats)
            args.out.write_text(json.dumps(result, indent=1))
    except RuntimeError as error:
        sys.exit(f"run.py: {error}")
    print(f"\nall of it: {args.out}")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--setting", choices=[*SETTINGS, "both"], default="both")
    parser.add_argument("--repeats", type=int, default=2, help="steps of each peer")
    parser.add_argument(
        "--only",
        type=lambda text: text.split(","),
        default=list(IMPLEMENTATIONS),
        help=f"some of {','.join(IMPLEMENTATIONS)}",
    )
    parser.add_argument("--tiny", action="store_true", help="toy sizes: whether it runs at all")
    parser.add_argument("--out", type=Path, default=Path("benchmark.json"))
    parser.add_argument(
        "--venvs",
        type=Path,
        default=cache_folder() / "benchmarks",
        help="where the peers' environments are kept",
    )
    args = parser.parse_args()
    if unknown := [name for name in args.only if name not in IMPLEMENTATIONS]:
        parser.error(f"--only: there is no {unknown[0]!r}; use {', '.join(IMPLEMENTATIONS)}")
    if args.repeats < 1:
        parser.error(f"--repeats is {args.repeats}; use 1 or more")
    return args


def compare(setting: Setting, pythons: Mapping[str, str], repeats: int) -> dict:
    """Measures and prints a setting; returns all of it, ready for JSON."""
    machine = measure_machine()
    measured = measure(setting, pythons, repeats)
    tokens = sum(setting.work()["lengths"])
    summaries = {name: summarize(found, tokens) for name, found in measured.items()}
    least = least_seconds(setting, machine)
    shares = shares_of_limit(summaries, least, tokens)
    titles = {
        name: f"{IMPLEMENTATIONS[name].title} {next(iter(found['versions'].values()))}"
        for name, found in measured.items()
    }
    print(f"matmul {machine.flops / 1e9:.0f} GFLOP/s, reading {machine.bandwidth / 1e9:.1f} GB/s")
    print(table(titles, summaries, shares), flush=True)
    return {
        "setting": asdict(setting),
        "matmul_flops": machine.flops,
        "read_bandwidth": machine.bandwidth,
        "least_seconds": least,
        "measured": measured,
        "summary": {
            name: {what: x._asdict() for what, x in summary.items()}
            for name, summary in summaries.items()
        },
        "shares_of_limit": shares,
        "ratios": ratios(summaries) if OURS in summaries else {},
    }


def measure(setting: Setting, pythons: Mapping[str, str], repeats: int) -> dict[str, dict]:
    """By implementation: versions and settings, seconds of compiling, and each of its steps."""
    work, measured = json.dumps(setting.work()), {}
    with ExitStack() as stack:
        running = {}
        for name, python in pythons.items():
            process = Process(IMPLEMENTATIONS[name].adapter, python)
            running[name] = stack.enter_context(closing(process))
            measured[name] = process.ask(work)
            warm = process.ask("warm-up")
            measured[name] |= {"compile_seconds": warm["compile_seconds"], "steps": []}
            progress(name, "warm-up", warm)
        for name in turns(list(running), repeats):
            step = running[name].ask("step")
            measured[name]["steps"].append(step)
            progress(name, "step", step)
    return measured


def turns(names: Sequence[str], repeats: int) -> list[str]:
    """Who does each step: every peer `repeats` times, and we before and after each of theirs."""
    peers = [name for name in names if name != OURS]
    if len(peers) == len(names) or not peers:
        return list(names) * repeats
    return [OURS, *(turn for peer in peers * repeats for turn in (peer, OURS))]


def progress(name: str, what: str, step: Mapping) -> None:
    phases = step["phases"].items()
    parts = ", ".join(f"{phase} {found['seconds']:.1f}" for phase, found in phases)
    load = os.getloadavg()[0]
    print(f"  {name} {what}: {step['seconds']:.1f} s ({parts}), load {load:.1f}", flush=True)


def measure_machine() -> Machine:
    """What matmuls and copies reach, in a process of their own, for nothing may stay resident."""
    limits = [sys.executable, str(Path(__file__).with_name("limits.py"))]
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return Machine(**json.loads(subprocess.run(limits, env=env, stdout=subprocess.PIPE).stdout))


def describe_machine() -> dict[str, str | int]:
    info = Path("/proc/cpuinfo").read_text()
    model = info.partition("model name")[2].partition(":")[2].partition("\n")[0].strip()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": model or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": platform.platform(),
        "python": platform.python_version(),
        "date": time.strftime("%Y-%m-%d"),
    }


if __name__ == "__main__":
    main()

"""A small run from start to end, as a user would make it, with the Python that runs this script.

There is a run that nothing interrupts. The same run is killed and goes on; two processes make it,
too. Its checkpoint is evaluated again, and so is its export. Metrics and answers must always be the
same. The script ends with status 1 and a line that says what is not so.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from permix_jax.train.log import without_clocks

ROOT = Path(__file__).resolve().parent.parent
STEPS, KILLED_AT = 6, 4
CONFIG = [
    f"--config={ROOT / 'configs/permix.py'}:tiny",
    "--config.mesh.fsdp=2",
    "--config.sft.steps=20",
    f"--config.train.steps={STEPS}",
    "--config.train.checkpoint_every=2",
    "--config.task.num_test=4",
    "--config.eval.every=2",
    "--config.eval.personas=2",
    "--config.eval.batch_size=16",
    "--config.eval.kl_responses=16",
]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        os.environ |= {"JAX_PLATFORMS": "cpu", "PERMIX_CACHE": str(place / "cache")}
        os.environ.pop("JAX_COMPILATION_CACHE_DIR", None)  # the run keeps programs in its cache
        whole, killed, two = (place / name for name in ("whole", "killed", "two"))

        say("a run on two devices")
        launch("train", *CONFIG, f"--workdir={whole}", devices=2)

        say("the same, killed and gone on with")
        kill_at_evaluation(KILLED_AT, *CONFIG, f"--workdir={killed}")
        check(not (killed / "report.html").exists(), "the run ended before it was killed")
        launch("train", *CONFIG, f"--workdir={killed}", devices=2)
        require_same(killed, whole)

        say("the same in two processes of one device each")
        train = str(ROOT / "launch/train.py")
        launch("local", "--processes=2", train, *CONFIG, f"--workdir={two}")
        require_same(two, whole)

        say("the evaluation of its checkpoint")
        again = place / "again"
        launch("evaluate", *CONFIG, f"--workdir={whole}", f"--out={again}", devices=2)
        require_same_answers(again, whole / "eval" / str(STEPS))

        say("its export, evaluated as a model of Hugging Face's format")
        export, exported = place / "export", place / "exported"
        launch("export", f"--workdir={whole}", f"--out={export}")
        launch("evaluate", *CONFIG, f"--model={export}", f"--out={exported}", devices=2)
        require_same_answers(exported, whole / "eval" / str(STEPS))
        say("all the same")


def say(text: str) -> None:
    print(f"-- {text}", flush=True)


def check(holds: bool, otherwise: str) -> None:
    if not holds:
        sys.exit(f"smoke test: {otherwise}")


def started(name: str, *args: str, devices: int) -> subprocess.Popen:
    """A command of launch/ with so many CPU devices; its stdout has all that it says."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    return subprocess.Popen(
        [sys.executable, str(ROOT / f"launch/{name}.py"), *args],
        env={**os.environ, "XLA_FLAGS": flags},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def launch(name: str, *args: str, devices: int = 1) -> None:
    with started(name, *args, devices=devices) as run:
        said = run.stdout.read()
    check(run.returncode == 0, f"launch/{name}.py ended with {run.returncode}, and said:\n{said}")


def kill_at_evaluation(step: int, *args: str) -> None:
    """Trains, and kills the run when it tells of its evaluation at `step`."""
    said = []
    with started("train", *args, devices=2) as run:
        for line in run.stdout:
            said.append(line)
            if line.startswith(f"evaluation of step {step} "):
                run.kill()
                return
    check(False, f"no evaluation of step {step} began; launch/train.py said:\n{''.join(said)}")


def require_same(run: Path, other: Path) -> None:
    """The run is complete; its metrics, but for those of a clock, and its answers are equal."""
    for name in ("report.html", "report.json", f"checkpoints/{STEPS}/params", "eval/0"):
        check((run / name).exists(), f"{run.name} has no {name}")
    rows = metrics(run)
    check([row["step"] for row in rows] == list(range(1, STEPS + 1)), f"steps of {run.name}")
    check(rows == metrics(other), f"the metrics of {run.name} and {other.name} differ")
    for folder in sorted((other / "eval").iterdir()):
        require_same_answers(run / "eval" / folder.name, folder)


def metrics(run: Path) -> list[dict]:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return without_clocks(rows)


def require_same_answers(folder: Path, other: Path) -> None:
    for name in ("completions.jsonl", "stability.json", "fidelity.json"):
        same = (folder / name).read_bytes() == (other / name).read_bytes()
        check(same, f"{name} of {folder} and {other} differ")


if __name__ == "__main__":
    main()

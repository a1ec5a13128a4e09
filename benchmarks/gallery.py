"""Draws the pictures of docs/gallery.md, of an RLVR and a PerMix run of one preset and seed.

    python benchmarks/gallery.py runs/rlvr-PRESET runs/permix-PRESET --out=docs/gallery

Where a Chromium is installed, it also takes the top of the PerMix run's report, as a browser shows
it.
"""

import argparse
import shutil
import subprocess
import tempfile
from pathlib import Path

from matplotlib.figure import Figure

from permix_jax.evaluation.results import read_jsonl
from permix_jax.report import plots

DOTS_PER_INCH = 110
WINDOW = "1200,900"  # pixels of the report that are shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("rlvr", type=Path, help="workdir of an RLVR run")
    parser.add_argument("permix", type=Path, help="workdir of a PerMix run")
    parser.add_argument("--out", type=Path, default=Path("docs/gallery"))
    args = parser.parse_args()
    try:
        figures = draw(args.rlvr, args.permix)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    args.out.mkdir(parents=True, exist_ok=True)
    written = [args.out / f"{name}.png" for name in figures]
    for path, figure in zip(written, figures.values(), strict=True):
        figure.savefig(path, dpi=DOTS_PER_INCH)
    if page_shown(args.permix / "report.html", page := args.out / "report.png"):
        written.append(page)
    print("wrote", ", ".join(map(str, written)))


def draw(rlvr: Path, permix: Path) -> dict[str, Figure]:
    """The pictures by name. Raises FileNotFoundError, ValueError where a run is not finished."""
    runs = dict(zip(("RLVR", "PerMix"), plots.read_runs([rlvr, permix]).values(), strict=True))
    metrics = {name: read_jsonl(run.workdir / "metrics.jsonl") for name, run in runs.items()}
    policies = plots.policies_of(runs)
    figures = {
        "accuracy_by_persona": plots.accuracy_by_persona(policies),
        "training": plots.training_curves(metrics),
        "right_by_prompt": plots.right_by_prompt(metrics["PerMix"]),
        "lottery": plots.persona_lottery(policies),
    }
    if policies["PerMix"].fidelity_of("role_play"):
        figures["robustness_and_fidelity"] = plots.robustness_and_fidelity(policies)
    return figures


def chromium() -> str | None:
    """The path of a Chromium, if one is installed."""
    names = ("chromium", "chromium-browser", "google-chrome")
    return next(filter(None, map(shutil.which, names)), None)


def page_shown(page: Path, picture: Path) -> bool:
    """Takes the top of a page as a picture; whether there was a browser for it."""
    if (browser := chromium()) is None:
        return False
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        command += [f"--window-size={WINDOW}", f"--user-data-dir={profile}"]
        command += [f"--screenshot={picture.absolute()}", page.absolute().as_uri()]
        subprocess.run(command, check=True, capture_output=True, timeout=300)
    return picture.exists()


if __name__ == "__main__":
    main()

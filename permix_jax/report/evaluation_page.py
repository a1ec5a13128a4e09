"""The report of one evaluation, beside its run's base if that was asked the same."""

from pathlib import Path

from permix_jax.evaluation.results import Evaluation, read_evaluation, read_json
from permix_jax.report.completions import browser_of
from permix_jax.report.content import config_section
from permix_jax.report.overview import overview
from permix_jax.report.run_page import headlines, sections_of
from permix_jax.report.write import write_report


def write_evaluation_report(folder: Path) -> str:
    """Writes report.json, report.md and report.html beside the JSON of a finished evaluation;
    returns the table to print.

    Raises FileNotFoundError or ValueError where a file is missing or damaged.
    """
    evaluation, identity = read_evaluation(folder), _identity(folder)
    policy = identity.get("policy", {})
    model, run = policy.get("model"), policy.get("run")
    name = Path(model).name if model else f"step {policy.get('step', '?')}"
    policies = {name: evaluation}
    if base := _base(folder, identity):
        policies = {"base": base, name: evaluation}
    rows = {policy: of.rows() for policy, of in policies.items()}
    config = identity.get("config", {})
    report = {
        "title": f"Evaluation of {name}",
        "facts": [f"run: {(folder / run).resolve().name}" if run else f"model: {model}"],
        "names": list(policies),
        "headlines": headlines(policies),
        "sections": [*sections_of(policies, rows, config), config_section(identity)],
        "completions": browser_of(rows),
    }
    write_report(report, folder)
    return overview(evaluation)


def _identity(folder: Path) -> dict:
    path = folder / "evaluation.json"
    return read_json(path) if path.is_file() else {}


def _base(folder: Path, identity: dict) -> Evaluation | None:
    """The run's evaluation of its base, if it is another one and was asked the same."""
    run = identity.get("policy", {}).get("run")
    if run is None:
        return None
    base = folder / run / "eval" / "0"
    if base.resolve() == folder.resolve() or not (base / "stability.json").is_file():
        return None
    return read_evaluation(base) if _asked(_identity(base)) == _asked(identity) else None


def _asked(identity: dict) -> dict:
    """The identity of an evaluation, without its policy."""
    return {key: value for key, value in identity.items() if key != "policy"}

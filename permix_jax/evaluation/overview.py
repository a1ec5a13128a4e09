"""The results of one evaluation as a table to print and as Markdown."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from permix_jax.evaluation.results import read_json
from permix_jax.evaluation.tables import markdown_table, text_table, with_interval
from permix_jax.files import write_text

_LEGEND = (
    "PSS: worst over best accuracy over the personas (eval.pss names another formula)",
    "plain: accuracy without a persona; flips: chance that answers under two personas differ",
)
_HURTING = 5  # personas listed
_DRAWN = (1, 2, 4, 8, 16, 32, 64)  # personas drawn in the lottery, as far as there are so many


def write_overview(folder: Path) -> str:
    """Writes `evaluation.md` beside the JSON of a finished evaluation; returns the table to print.

    Raises FileNotFoundError or ValueError where a file is missing or damaged.
    """
    stability = read_json(folder / "stability.json")
    faithful, judged = (
        read_json(path) if path.is_file() else None
        for path in (folder / "fidelity.json", folder / "judge_free.json")
    )
    tables = [
        ("Stability", *_stability_table(stability)),
        ("Persona lottery: expected accuracy of k personas drawn", *_lottery_table(stability)),
        ("Personas that hurt most (p adjusted by Holm)", *_effects_table(stability)),
    ]
    if faithful:
        tables.append(("Fidelity by the exact rule", *_fidelity_table(faithful)))
    if judged:
        tables.append(("Fidelity without a judge", *_judge_free_table(judged)))

    sections = [f"## {title}\n\n{markdown_table(header, rows)}" for title, header, rows in tables]
    text = "\n\n".join(["# Evaluation", *sections, "Intervals are of 95 %.", *_LEGEND])
    write_text(folder / "evaluation.md", text + "\n")
    shown = [f"{title}\n{text_table(header, rows)}" for title, header, rows in tables]
    return "\n\n".join(["\n".join([shown[0], *_LEGEND]), *shown[1:]])


Table = tuple[Sequence[str], list[list[str]]]


def _by_set(result: Mapping) -> dict[str, Mapping]:
    """The figures of each persona set and, of several, those of all together."""
    sets = result["by_set"]
    return {**sets, "together": result} if len(sets) > 1 else sets


def _stability_table(stability: Mapping) -> Table:
    header = ("personas", "number", "PSS", "mean", "worst", "best", "plain", "flips")
    names = ("pss", "accuracy_mean", "accuracy_worst", "accuracy_best", "accuracy_no_persona")
    return header, [
        [
            name,
            str(len(figures["per_persona"])),
            *(with_interval(figures, key) for key in (*names, "flip_rate")),
        ]
        for name, figures in _by_set(stability).items()
    ]


def _lottery_table(stability: Mapping) -> Table:
    most = len(stability["per_persona"])
    drawn = [k for k in _DRAWN if k < most] + [most]
    rows = []
    for name, figures in _by_set(stability).items():
        for side in ("best", "worst"):
            expected = figures["lottery"][f"expected_{side}"]
            cells = [f"{expected[k - 1]:.3f}" if k <= len(expected) else "-" for k in drawn]
            rows.append([f"{name}, {side}", *cells])
    return ("personas", *(f"k = {k}" for k in drawn)), rows


def _effects_table(stability: Mapping) -> Table:
    effects = stability["persona_effects"][:_HURTING]
    return ("persona", "accuracy", "minus plain", "p", "p adjusted"), [
        [
            entry["persona"],
            f"{entry['accuracy']:.3f}",
            with_interval(entry, "effect", "+"),
            f"{entry['p']:.2g}",
            f"{entry['p_adjusted']:.2g}",
        ]
        for entry in effects
    ]


def _fidelity_table(faithful: Mapping) -> Table:
    tasks = list(faithful["by_task"])
    return ("personas", *tasks), [
        [name, *(with_interval(figures["by_task"][task], "fidelity") for task in tasks)]
        for name, figures in _by_set(faithful).items()
    ]


def _judge_free_table(judged: Mapping) -> Table:
    rows = []
    for task, figures in judged["by_task"].items():
        found, gain, style = (
            figures[name] for name in ("identification", "gain_per_token", "style_distance")
        )
        agreement = figures["agreement"]
        rows.append(
            [
                task,
                with_interval(found, "share"),
                f"{found['chance']:.3f}",
                with_interval(gain, "gain", "+"),
                with_interval(gain, "margin", "+"),
                with_interval(style, "distance") if style else "-",
                with_interval(agreement["gain"], "auc") if agreement else "-",
            ]
        )
    header = ("task", "identified", "chance", "gain, nats/token", "margin")
    return (*header, "style distance, bits", "AUC against the rule"), rows

"""Maps of a comparison: how far PerMix-RLVR is ahead of RLVR over two fields of the config."""

from collections.abc import Mapping, Sequence

from permix_jax.core.fields import flat_fields
from permix_jax.report.content import grid, mean_over_seeds, section
from permix_jax.report.run_figures import Run

MAPPED = ("PSS", "role-play", "arithmetic")


def maps(comparison: Mapping, runs: Sequence[Run]) -> list[dict]:
    """A section with a map of the relative gain in each measure of MAPPED that is known; none
    unless the pairs of `compare_runs` differ in exactly two fields.

    A cell is {"value": permix / rlvr - 1, "ci95": limits over seeds or None}, or None where no pair
    has these two values.
    """
    configs: dict[str, dict] = {}
    for run in runs:
        configs.setdefault(run.method(), flat_fields(run.config))
    pairs = comparison["pairs"]
    ours = [configs[pair["ours"]] for pair in pairs]
    fields = [f for f in (ours[0] if ours else ()) if f != "seed" and _varies(f, ours)]
    if len(fields) != 2:
        return []
    xs, ys = (sorted({config[field] for config in ours}) for field in fields)
    at = {tuple(c[f] for f in fields): pair for c, pair in zip(ours, pairs, strict=True)}
    charts = []
    for measure in MAPPED:
        rows = [[_gain(at.get((x, y)), measure) for x in xs] for y in ys]
        if any(cell for row in rows for cell in row):
            chart = grid(f"permix / rlvr - 1, {measure}", *fields, xs, ys, rows)
            charts.append(chart | {"file": f"map_{measure.lower().replace('-', '_')}.png"})
    return [section("maps", charts, fields=fields)]


def _varies(field: str, configs: Sequence[Mapping]) -> bool:
    return any(config.get(field) != configs[0].get(field) for config in configs)


def _gain(pair: Mapping | None, measure: str) -> dict | None:
    known = pair and measure in pair["relative"]
    return mean_over_seeds(pair["relative"][measure]) if known else None

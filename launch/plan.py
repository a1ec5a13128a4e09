"""Says whether a run fits a TPU slice, and how fast it is there.

  python launch/plan.py --config=configs/permix.py:qwen3_8b --topology=v5e:4x4
  python launch/plan.py --config=configs/permix.py:qwen3_8b --topology=v5e:4x4 --config.lora.rank=16
  python launch/plan.py --config=configs/permix.py:qwen3_8b --topology=v5e:4x4 --explain
  python launch/plan.py --config=configs/permix.py:qwen3_8b --topology=v5e:4x4 --search
  python launch/plan.py --config=configs/permix.py:qwen3_8b --chips=v5e:2x4,v5e:4x4
  python launch/plan.py --compare=runs/permix-qwen3_8b

Compiles the programs of the config's run for the slice, on any machine, and prints the
memory and time that they take of a chip: the least that the chip allows, and what the compiler
predicts. Takes minutes, and seconds for programs that it compiled before. A search ranks meshes and
sizes by the time of a step; --compare sets a run's times on a TPU beside the predicted ones. Needs:
pip install -e '.[plan]'
"""

from permix_jax.planning.environment import compile_for_tpu

compile_for_tpu()  # before JAX is imported

from pathlib import Path  # noqa: E402

from absl import flags  # noqa: E402

from permix_jax.app.cli import (  # noqa: E402
    changed_fields,
    config_arguments,
    launch,
    set_field,
)
from permix_jax.core.field_rules import require_read  # noqa: E402
from permix_jax.core.fields import names_in  # noqa: E402

_TOPOLOGY = flags.DEFINE_string(
    "topology", "v5e:4x4", "CHIP:SHAPE: TPU slice, such as v5e:4x4 or v5p:2x2x2"
)
_EXPLAIN = flags.DEFINE_bool(
    "explain", False, "show what takes the predicted time, as a table and in an HTML file"
)
_SEARCH = flags.DEFINE_bool(
    "search", False, "rank meshes, sizes of batches and remat by the time of a step"
)
_CHIPS = flags.DEFINE_string(
    "chips", "", "CHIP:SHAPE,...: search each of these slices in place of --topology"
)
_COMPILED = flags.DEFINE_integer(
    "compiled", 4, "N: about how many settings of a slice a search compiles", lower_bound=1
)
_COMPARE = flags.DEFINE_string(
    "compare", None, "WORKDIR: a run on a TPU, whose times are set beside the predicted ones"
)


def main(config, workdir, name, preset) -> None:
    require_read([config.to_dict()], changed_fields(), "plan")
    if _COMPARE.value:
        _compare(config, Path(_COMPARE.value))
    elif _SEARCH.value or _CHIPS.value:
        _search(config)
    else:
        _plan(config, "-".join(filter(None, ["plan", name, preset])))


def _plan(config, title: str) -> None:
    from permix_jax.app.next_steps import after_planning
    from permix_jax.app.workdir import cache_folder
    from permix_jax.core.files import write_text
    from permix_jax.planning.explain import dearest, explain_page
    from permix_jax.planning.plan import make_plan, plan_report

    plan = make_plan(config, _TOPOLOGY.value, cache_folder())
    print(plan_report(plan, config))
    if _EXPLAIN.value:
        page = Path(f"{title}-{plan.topology.replace(':', '-')}.html").absolute()
        write_text(page, explain_page(plan))
        print(f"\n{dearest(plan)}\n\nall of them: {page}\n")
    if plan.fits():
        print(after_planning(config_arguments()))


def _search(config) -> None:
    from permix_jax.app.next_steps import after_search
    from permix_jax.app.workdir import cache_folder
    from permix_jax.planning.search import search_slices
    from permix_jax.planning.search_report import changed_by, search_report, slices_table

    if _CHIPS.value and flags.FLAGS["topology"].present:
        raise ValueError("--chips stands in place of --topology: leave one of them out")
    slices = names_in(_CHIPS.value) or [_TOPOLOGY.value]
    found, refused = search_slices(config, slices, cache_folder(), _COMPILED.value)
    for each in found:
        print(f"{search_report(each, config)}\n")
    if len(slices) > 1:
        print(f"{slices_table(found, refused)}\n")
    cheapest = min(found, key=lambda x: x.best().seconds() * x.best().plan.chips)
    for field, value in changed_by(cheapest.best(), config).items():
        set_field(field, value)
    print(after_search(config_arguments(), cheapest.topology))


def _compare(config, workdir: Path) -> None:
    from permix_jax.app.workdir import cache_folder
    from permix_jax.planning.comparison import comparison_report, measured, topology_of
    from permix_jax.planning.plan import make_plan

    named = _TOPOLOGY.value if flags.FLAGS["topology"].present else None
    topology, found = topology_of(workdir, config, named), measured(workdir)
    print(comparison_report(make_plan(config, topology, cache_folder()), config, found))


if __name__ == "__main__":
    launch(main, of_a_run=False, config_of="compare")

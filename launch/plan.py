"""Says whether a run fits a TPU slice, and how fast it is there.

  python launch/plan.py --config=configs/permix.py:qwen3_8b --topology=v5e:4x4
  python launch/plan.py --config=configs/permix.py:qwen3_8b --topology=v5e:4x4 --config.lora.rank=16
  python launch/plan.py --config=configs/permix.py:qwen3_8b --topology=v5e:4x4 --explain

Compiles the programs of the config's run for the slice, on any machine, and prints the
memory and time that they take of a chip: the least that the chip allows, and what the compiler
predicts. Takes minutes, and seconds for programs that it compiled before. Needs: pip install -e
'.[plan]'
"""

from permix_jax.planning.environment import compile_for_tpu

compile_for_tpu()  # before JAX is imported

from pathlib import Path  # noqa: E402

from absl import flags  # noqa: E402

from permix_jax.app.cli import changed_fields, config_arguments, launch  # noqa: E402
from permix_jax.core.field_rules import require_read  # noqa: E402

_TOPOLOGY = flags.DEFINE_string(
    "topology", "v5e:4x4", "CHIP:SHAPE: TPU slice, such as v5e:4x4 or v5p:2x2x2"
)
_EXPLAIN = flags.DEFINE_bool(
    "explain", False, "show what takes the predicted time, as a table and in an HTML file"
)


def main(config, workdir, name, preset) -> None:
    from permix_jax.app.next_steps import after_planning
    from permix_jax.app.workdir import cache_folder
    from permix_jax.core.files import write_text
    from permix_jax.planning.explain import dearest, explain_page
    from permix_jax.planning.plan import make_plan, plan_report

    require_read([config.to_dict()], changed_fields(), "plan")
    plan = make_plan(config, _TOPOLOGY.value, cache_folder())
    print(plan_report(plan, config))
    if _EXPLAIN.value:
        run = "-".join(filter(None, ["plan", name, preset, plan.topology.replace(":", "-")]))
        page = Path(f"{run}.html").absolute()
        write_text(page, explain_page(plan))
        print(f"\n{dearest(plan)}\n\nall of them: {page}\n")
    if plan.fits():
        print(after_planning(config_arguments()))


if __name__ == "__main__":
    launch(main, of_a_run=False)

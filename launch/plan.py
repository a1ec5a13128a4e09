"""Says whether a run fits a TPU slice, and how fast it could be there at best.

  python launch/plan.py --config=configs/permix.py:qwen3_8b --topology=v5e:4x4
  python launch/plan.py --config=configs/permix.py:qwen3_8b --topology=v5e:4x4 --config.lora.rank=16

Compiles rollout, scoring and update of the config for the slice, on any machine, and prints the
memory and time that they take of a chip. Takes minutes. Needs: pip install -e '.[plan]'
"""

from permix_jax.planning.environment import compile_for_tpu

compile_for_tpu()  # before JAX is imported

from absl import flags  # noqa: E402

from permix_jax.app.cli import changed_fields, config_arguments, launch  # noqa: E402
from permix_jax.core.field_rules import require_read  # noqa: E402

_TOPOLOGY = flags.DEFINE_string(
    "topology", "v5e:4x4", "CHIP:SHAPE: TPU slice, such as v5e:4x4 or v5p:2x2x2"
)


def main(config, workdir, name, preset) -> None:
    from permix_jax.app.next_steps import after_planning
    from permix_jax.app.workdir import cache_folder
    from permix_jax.planning.plan import make_plan, plan_report

    require_read([config.to_dict()], changed_fields(), "plan")
    plan = make_plan(config, _TOPOLOGY.value, cache_folder())
    print(plan_report(plan, config))
    if plan.fits():
        print(after_planning(config_arguments()))


if __name__ == "__main__":
    launch(main, of_a_run=False)

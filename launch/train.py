"""Trains a policy, then evaluates it and its base.

  python launch/train.py --config=configs/permix.py                 embedded world, minutes on a CPU
  python launch/train.py --config=configs/rlvr.py                   the same without personas
  python launch/train.py --config=configs/permix.py:smollm2_arithmetic  SmolLM2-135M on arithmetic
  python launch/train.py --config=configs/permix.py:smollm2_mawps       SmolLM2-135M, word problems

--from=runs/permix:best begins a new run with the policy of another run, which is its base.
Repeat the command to continue where it stopped. Another config needs another --workdir. The command
ends with a table, a report, and what to do next.
"""

from absl import flags

from permix_jax.app.cli import changed_fields, config_arguments, launch, set_field

flags.DEFINE_string(
    "from", None, "RUN:STEP: run whose policy to begin with; STEP, or best, may be left out"
)


def main(config, workdir, name, preset) -> None:
    from permix_jax.app.experiment import run

    if flags.FLAGS["from"].value:
        set_field("train.start", flags.FLAGS["from"].value)
    print(run(config, workdir, name, preset, changed_fields(), arguments=config_arguments()))


if __name__ == "__main__":
    launch(main, several_processes=True)

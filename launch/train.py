"""Trains a policy, then evaluates it and its base.

  python launch/train.py --config=configs/permix.py                 embedded world, minutes on a CPU
  python launch/train.py --config=configs/rlvr.py                   the same without personas
  python launch/train.py --config=configs/permix.py:smollm2_mawps   SmolLM2-135M on word problems

Repeat the command to continue where it stopped. Another config needs another --workdir. The command
ends with a table, a report, and what to do next.
"""

from permix_jax.app.cli import changed_fields, config_arguments, launch


def main(config, workdir, name, preset) -> None:
    from permix_jax.app.experiment import run

    print(run(config, workdir, name, preset, changed_fields(), arguments=config_arguments()))


if __name__ == "__main__":
    launch(main, several_processes=True)

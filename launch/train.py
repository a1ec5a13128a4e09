"""Trains a policy and evaluates it:  python launch/train.py --config=configs/permix.py

  --config=FILE:PRESET   picks a preset of a config file
  --config.a.b=value     sets a field; configs/permix.py explains them all
  --workdir=DIR          where everything is written; default: runs/<config>-<preset>

The same command again goes on where the last one stopped.
"""

from permix_jax.cli import changed_fields, launch
from permix_jax.experiment import run


def main(config, workdir, name, preset) -> None:
    print(run(config, workdir, name, preset, changed_fields()))
    print(f"report: {workdir / 'report.html'}")


if __name__ == "__main__":
    launch(main, several_processes=True)

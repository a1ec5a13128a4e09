"""Makes the paper's comparison: every method over seeds, one table.

  python launch/reproduce.py --config=configs/reproduce.py
  python launch/reproduce.py --config=configs/reproduce.py --config.reproduce.ablation=kl
  python launch/reproduce.py --config=configs/reproduce.py:tiny --config.reproduce.seeds=2

Trains and evaluates every method, several runs side by side. Writes a workdir for each run,
comparison.txt, comparison.json, plots and report.html into --out. Repeat the command to continue
where it stopped; it keeps finished runs. docs/comparison.md says what the results mean.
"""

import sys

from absl import flags

from permix_jax.app.cli import STOPPED, changed_fields, config_arguments, launch
from permix_jax.core.places import place_of, require_local

_OUT = flags.DEFINE_string("out", None, "DIR: for the comparison; default: runs/<config>-<preset>")


def main(config, workdir, name, preset) -> None:
    from permix_jax.app.next_steps import after_reproduction
    from permix_jax.core.stop import Stopped
    from permix_jax.reproduction.reproduce import reproduce

    out = place_of(_OUT.value) if _OUT.value else workdir
    require_local(out, "--out")
    try:
        print(reproduce(config, out, preset, changed_fields()))
    except Stopped:
        print(f"stopped; {out} is saved, and the same command goes on from there")
        sys.exit(STOPPED)
    else:
        print(after_reproduction(out, config_arguments(), config.reproduce.ablation))


if __name__ == "__main__":
    launch(main, of_a_run=False)

"""What the notebooks share: which device there is, and runs that are followed while they train."""

import subprocess
import sys

_DEVICES = "import jax; d = jax.devices(); print(d[0].platform, len(d), d[0].device_kind, sep='|')"


def found_device() -> str:
    """The line that says which accelerator JAX finds, such as "found 1 x TPU v5 lite".

    JAX is asked in a process of its own: whoever asks holds a TPU until it ends, and a run that
    the notebook starts could not have it.

    Raises RuntimeError, with JAX's last line, where it finds none.
    """
    asked = subprocess.run([sys.executable, "-c", _DEVICES], capture_output=True, text=True)
    if asked.returncode:
        said = asked.stderr.strip().splitlines() or ["it said nothing"]
        raise RuntimeError(f"JAX finds no device: {said[-1]}; install jax[tpu], jax[cuda12] or jax")
    platform, number, kind = asked.stdout.strip().splitlines()[-1].split("|")
    if platform == "cpu":
        return "found no accelerator; all of it runs on the CPU"
    return f"found {number} x {kind} ({platform.upper()})"

import subprocess
import sys

import pytest
from runs import ROOT

from permix_jax.app.notebook import found_device, train_live


def test_says_which_device_there_is(monkeypatch):
    assert found_device() == "found no TPU and no GPU: runs on the CPU"
    monkeypatch.setenv("JAX_PLATFORMS", "abacus")
    with pytest.raises(RuntimeError, match="JAX finds no device: .*abacus.*; install"):
        found_device()


def test_the_devices_are_left_to_the_runs():
    """Importing what the notebooks import starts no backend, which on a TPU would hold it."""
    program = (
        "import permix_jax.app.notebook, permix_jax.report.overview; "
        "from jax._src import xla_bridge; print(xla_bridge.backends_are_initialized())"
    )
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert ran.stdout.strip() == "False"


def test_a_run_that_fails_ends_the_cell_with_its_own_line(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    runs = {"permix": ["--config=configs/permix.py:tiny", "--config.train.stops=3"], "rlvr": []}
    with pytest.raises(RuntimeError, match="permix failed: .*no such field") as failure:
        train_live(tmp_path, runs)
    assert str(tmp_path / "permix.log") in str(failure.value)
    assert "\n" not in str(failure.value) and not (tmp_path / "rlvr.log").exists()

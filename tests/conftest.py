"""Set-up of all tests: eight fake CPU devices, a compilation cache, one tiny decoder."""

import os
import tempfile
from pathlib import Path

# Before JAX is imported: these are read once.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR", str(Path(tempfile.gettempdir()) / "permix_jax_test_xla")
)
# Every program is kept: a process of a tiny run has hundreds that compile in milliseconds each.
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from markupsafe import Markup  # noqa: E402

from permix_jax.core.sharding import make_mesh  # noqa: E402
from permix_jax.models.config import ModelConfig  # noqa: E402
from permix_jax.models.params import create_params  # noqa: E402
from permix_jax.models.transformer import Decoder  # noqa: E402
from permix_jax.train.log import MetricsLog  # noqa: E402
from permix_jax.train.metric_names import metric  # noqa: E402

# A busy machine is slow; no test measures time.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

TINY = ModelConfig(
    vocab_size=48,
    embed_dim=16,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    mlp_dim=24,
)

# The files that take longest, longest first. They start first, so that no process of pytest is left
# with one of them when the other has nothing to do.
LONGEST = (
    "test_reproduce",
    "test_notebooks",
    "test_resume",
    "test_distributed",
    "test_personagym_run",
    "test_evaluations",
    "test_recipes",
    "test_supervised",
    "test_changed_on_resume",
    "test_experiment",
    "test_gradients",
    "test_memory",
    "test_rehearsal",
    "test_export",
    "test_lora_run",
    "test_printed_commands",
)


def pytest_collection_modifyitems(items):
    order = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.stem, len(LONGEST)))


@pytest.fixture(scope="module", autouse=True)
def undrawn_charts(request):
    """The charts of a report take a quarter of a tiny run's time. They are drawn in the tests of
    reports and of an experiment, and by every process that a test starts; no other test sees them.
    """
    if request.path.parent.name == "report" or request.path.stem == "test_experiment":
        yield
        return

    def svg_of(chart, names):
        assert chart["title"] and chart["type"] in {"lines", "points", "ranking", "grid"}
        return Markup("<svg></svg>")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("permix_jax.report.write.svg_of", svg_of)
        yield


@pytest.fixture(scope="module", autouse=True)
def known_metrics(request):
    """Every metric that a run in a test's process writes is in the glossary."""
    if request.path.stem in {"test_log", "test_loop", "test_method"}:  # names of their own
        yield
        return
    write = MetricsLog.write

    def checked(self, row):
        assert [name for name in row if metric(name) is None] == []
        write(self, row)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(MetricsLog, "write", checked)
        yield


@pytest.fixture(scope="session")
def mesh():
    """A mesh of one device."""
    return make_mesh(1, 1, 1)


@pytest.fixture(scope="session")
def tiny_model() -> Decoder:
    return Decoder(TINY)


@pytest.fixture(scope="session")
def tiny_params(tiny_model, mesh):
    return create_params(tiny_model, jax.random.key(0), mesh)

import logging

import jax
import numpy as np
import pytest

from permix_jax.app.compilation import compiled_programs


def test_programs_are_counted_and_found_again(tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "permix_jax")
    monkeypatch.setenv("PERMIX_CACHE", str(tmp_path))
    settings = {
        "jax_compilation_cache_dir": None,
        "jax_persistent_cache_min_compile_time_secs": 1.0,  # as JAX has it
    }
    before = {name: getattr(jax.config, name) for name in settings}
    x = np.arange(5.0)
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        jax.experimental.compilation_cache.compilation_cache.reset_cache()
        counts = []
        for _ in range(2):
            with compiled_programs() as count:
                assert jax.jit(lambda x: (x * 3).sum())(x) == pytest.approx(30)
            counts.append(dict(count))
        assert any((tmp_path / "xla").iterdir())
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        jax.experimental.compilation_cache.compilation_cache.reset_cache()
    assert [(c["programs"], c["found"]) for c in counts] == [(1, 0), (1, 1)]
    assert counts[0]["seconds"] > 0
    with compiled_programs():
        pass  # nothing compiled, nothing said
    assert [line.split(" in ")[0] for line in caplog.messages] == ["1 programs compiled"] * 2

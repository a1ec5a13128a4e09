"""Compiled programs: kept on disk from run to run, and counted."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from permix_jax.app.workdir import cache_folder

_LOG = logging.getLogger(__name__)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the cache folder, unless JAX has another place for them."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        # By default JAX keeps programs that took a second. Small models have dozens of faster ones.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextmanager
def compiled_programs() -> Iterator[Counter]:
    """Uses the compilation cache; counts, and logs, the `programs` that are compiled within, how
    many of them were `found` in the cache, and the `seconds` for all."""
    use_compilation_cache()
    count = Counter(programs=0, found=0, seconds=0.0)

    def on_duration(event: str, seconds: float, **_) -> None:
        if event == "/jax/core/compile/backend_compile_duration":  # programs from the cache, too
            count.update(programs=1, seconds=seconds)

    def on_event(event: str, **_) -> None:
        if event == "/jax/compilation_cache/cache_hits":
            count.update(found=1)

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)
        if count["programs"]:
            said = "%(programs)d programs compiled in %(seconds).0f s, %(found)d of them found"
            _LOG.info(f"{said} in the cache", count)

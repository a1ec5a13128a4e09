"""Compiled programs: kept on disk from run to run, and counted."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from permix_jax.app.workdir import cache_folder

_LOG = logging.getLogger(__name__)
_COMPILED = "/jax/core/compile/backend_compile_duration"  # of programs from the cache, too
_FOUND = "/jax/compilation_cache/cache_hits"


def use_compilation_cache() -> None:
    """Keeps compiled programs in the cache folder, unless JAX was told of another place."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        # JAX keeps what took a second; small models have dozens of programs that take less.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextmanager
def compiled_programs() -> Iterator[Counter]:
    """Keeps compiled programs in the cache folder; says at the end how many there were within.

    Counts `programs`, those of them `found` in the cache, and the `seconds` that all took.
    """
    use_compilation_cache()
    count = Counter(programs=0, found=0, seconds=0.0)

    def on_duration(event: str, seconds: float, **_) -> None:
        if event == _COMPILED:
            count.update(programs=1, seconds=seconds)

    def on_event(event: str, **_) -> None:
        if event == _FOUND:
            count.update(found=1)

    jax.monitoring.register_event_duration_secs_listener(on_duration)
    jax.monitoring.register_event_listener(on_event)
    try:
        yield count
    finally:
        jax.monitoring.unregister_event_duration_listener(on_duration)
        jax.monitoring.unregister_event_listener(on_event)
        if count["programs"]:
            _LOG.info(
                "%d programs compiled in %.0f s, %d of them found in the cache",
                count["programs"],
                count["seconds"],
                count["found"],
            )

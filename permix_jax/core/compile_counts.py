"""Counts the programs that XLA compiles, as JAX reports them."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import jax

COMPILED = "/jax/core/compile/backend_compile_duration"  # also of what comes from the cache


@contextmanager
def compile_counts() -> Iterator[Counter]:
    """Counts the `programs` that are compiled within, those from the compilation cache included,
    how many of them were `found` there, and the `seconds` for all."""
    count = Counter(programs=0, found=0, seconds=0.0)

    def on_duration(event: str, seconds: float, **_) -> None:
        if event == COMPILED:
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

"""Compiled programs: kept on disk from run to run, and counted."""

import logging
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import jax

from permix_jax.app.workdir import cache_folder
from permix_jax.core.compile_counts import compile_counts

_LOG = logging.getLogger(__name__)


def use_compilation_cache() -> None:
    """Keeps compiled programs in the cache folder, unless JAX has another place for them."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "xla"))
        # By default JAX keeps programs that took a second. Small models have dozens of faster ones.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextmanager
def compiled_programs() -> Iterator[Counter]:
    """Uses the compilation cache; counts, as `compile_counts`, and logs what is compiled within."""
    use_compilation_cache()
    with compile_counts() as count:
        try:
            yield count
        finally:
            if count["programs"]:
                said = "%(programs)d programs compiled in %(seconds).0f s, %(found)d of them found"
                _LOG.info(f"{said} in the cache", count)

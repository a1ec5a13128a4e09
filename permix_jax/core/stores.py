"""An object store, by fsspec, with patience: a call that fails is tried again.

Only what has worked before is tried again, for `patience()` seconds: a bucket without rights is
refused at once.
"""

import logging
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")
_LOG = logging.getLogger(__name__)
_EXTRAS = {"s3": "s3", "gs": "gcs"}  # the scheme -> the extra of setup.cfg with its package
_FIRST_WAIT, _LONGEST_WAIT = 0.5, 30.0  # seconds between two tries


class StoreError(OSError):
    """A store refuses, or has been away for too long."""


def patience() -> float:
    """For how many seconds a call is tried again: $PERMIX_STORE_SECONDS, or 600."""
    return float(os.environ.get("PERMIX_STORE_SECONDS") or 600)


class Store:
    """The objects of one kind of address, by fsspec, with patience."""

    def __init__(self, scheme: str):
        import fsspec  # only who has an address needs it

        try:
            # What another process wrote must be seen, so no list of objects is kept.
            self.files = fsspec.filesystem(scheme, use_listings_cache=False)
        except ImportError as error:
            extra = _EXTRAS.get(scheme)
            remedy = f"pip install 'permix_jax[{extra}]'" if extra else "install that package"
            raise ImportError(f"{scheme}:// needs another package ({error}); {remedy}") from None
        except ValueError:
            raise ValueError(
                f"{scheme}:// is no store that fsspec knows; use an address such as "
                "s3://bucket/run or gs://bucket/run, or a folder"
            ) from None
        self._worked: set[tuple[str, str]] = set()  # "read" or "write", and the bucket
        self._gone = False

    def call(self, kind: str, address: Any, call: Callable[[], T]) -> T:
        """The value of `call`, which does `kind`, "read" or "write".

        FileNotFoundError and FileExistsError are answers, the first only of "read". Raises
        StoreError for any other error: at once where nothing of the kind has worked yet; otherwise
        after `patience()` seconds, and at once from then on.
        """
        answers = FileNotFoundError if kind == "read" else FileExistsError
        known = kind, address.key.partition("/")[0]
        began, wait = time.monotonic(), _FIRST_WAIT
        while True:
            try:
                value = call()
            except answers:
                self._worked.add(known)
                raise
            except Exception as error:  # each library has errors of its own
                reason = _one_line(error)
                left = began + patience() - time.monotonic()
                if known not in self._worked:
                    remedy = "check the address, the credentials and the rights of the bucket"
                    raise StoreError(f"{address}: cannot {kind} ({reason}); {remedy}") from None
                if self._gone or left <= 0:
                    self._gone = True
                    raise StoreError(
                        f"{address}: cannot {kind} for {patience():.0f} s ({reason}); what is "
                        "finished is kept, run again when the store is back"
                    ) from None
                if wait == _FIRST_WAIT:
                    said = "%s: cannot %s (%s); trying again for %.0f s"
                    _LOG.warning(said, address, kind, reason, patience())
                time.sleep(min(wait, left))
                wait = min(2 * wait, _LONGEST_WAIT)
            else:
                self._worked.add(known)
                return value


store_of = cache(Store)


def _one_line(error: Exception) -> str:
    return " ".join((str(error).strip() or type(error).__name__).split())[:200]

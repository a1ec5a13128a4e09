"""Data for the tests of tasks: small made-up files, and the real ones where they are."""

from functools import lru_cache
from pathlib import Path

import pytest
from small_data import write_files

from permix_jax.tasks.datasets.load import load_problems


@pytest.fixture
def folder(tmp_path):
    """A folder with every file, as data.folder names it."""
    return write_files(tmp_path / "data")


@pytest.fixture(scope="session")
def real_folder():
    """The real files; a test that asks for them is skipped where they are not."""
    data = Path(__file__).resolve().parents[3] / "shared" / "data"
    if not data.is_dir():
        pytest.skip("needs ../shared/data beside the checkout")
    return data


@pytest.fixture(scope="session")
def real_problems(real_folder, tmp_path_factory):
    """name -> the problems of a real data set, built and read once for all tests."""
    cache = tmp_path_factory.mktemp("real_cache")
    return lru_cache(lambda name: load_problems(name, str(real_folder), cache))

"""The tokenizers of all families, written once."""

import pytest
from chat_templates import FAMILIES, write_tokenizer


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """family -> its folder and its number of tokens"""
    root = tmp_path_factory.mktemp("tokenizers")
    return {name: (root / name, write_tokenizer(root / name, f)) for name, f in FAMILIES.items()}

"""The words and signs that the verifier knows: vocabulary.toml."""

import tomllib
from pathlib import Path

VOCABULARY = tomllib.loads(Path(__file__).with_name("vocabulary.toml").read_text("utf-8"))


def listed(name: str) -> frozenset[str]:
    """A list of words in vocabulary.toml."""
    return frozenset(VOCABULARY[name].split())


def paired(name: str) -> dict[str, str]:
    """A list of two columns in vocabulary.toml."""
    words = VOCABULARY[name].split()
    return dict(zip(words[::2], words[1::2], strict=True))

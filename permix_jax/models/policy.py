"""A policy: a decoder with its tokenizer; and the same with its parameters, stored or loaded."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from jax.sharding import Mesh
from transformers import PreTrainedTokenizerBase

from permix_jax.models.transformer import Decoder


class Policy(NamedTuple):
    """`end_tokens` end a completion; all of them are removed from its text."""

    model: Decoder
    tokenizer: PreTrainedTokenizerBase
    end_tokens: tuple[int, ...]

    def text(self, tokens, mask) -> list[str]:
        """The completions [B, T] as text, without padding, end tokens and special tokens."""
        rows = [
            [t for t in row[keep].tolist() if t not in self.end_tokens]
            for row, keep in zip(tokens, mask, strict=True)
        ]
        return self.tokenizer.batch_decode(rows, skip_special_tokens=True)


class LoadedPolicy(NamedTuple):
    """A policy with its parameters, which lie on `mesh`."""

    policy: Policy
    params: dict
    mesh: Mesh


@dataclass(frozen=True)
class StoredPolicy:
    """A policy, and what loads its parameters. Nothing is read before they are asked for."""

    name: str  # what people call it, such as "step 50"
    policy: Policy
    mesh: Mesh
    load_params: Callable[[], dict]  # reads or makes the parameters, and puts them onto `mesh`

    def load(self) -> LoadedPolicy:
        return LoadedPolicy(self.policy, self.load_params(), self.mesh)

"""A policy: a decoder with the tokenizer that goes with it. Parameters travel beside it."""

from typing import NamedTuple

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

"""Packs prompts and their completions into rows of a token budget, with next to no padding.

A row holds prompts, each followed by some of its completions. So a prompt is computed once in a row
for all of them. The update, the scores and the likelihoods all read these rows.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Sequence
from math import inf
from typing import NamedTuple

import flax.struct
import jax
import numpy as np

from permix_jax.models.attention import PackedLayout

_SHORTEST, _LONGEST = 8, 128  # tokens of a block
# Each width is a program to compile. In the steps of tests/models/test_packing.py these three, in
# sixteenths of the token budget, leave 7 % of the computed tokens empty, nine widths leave 5 %.
_WIDTHS = (9, 10, 16)
_TOLERANCE = 1.05
_TRIED = 12  # of the largest groups; the best part of one of them is taken


class Ragged(NamedTuple):
    """Sequences of different lengths, one after another: values [total], lengths int [n]."""

    values: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> "Ragged":
        values = np.fromiter((token for tokens in sequences for token in tokens), np.int32)
        return cls(values, np.array([len(tokens) for tokens in sequences], int))

    @classmethod
    def masked(cls, values: np.ndarray, mask: np.ndarray) -> "Ragged":
        """The sequences of an array [n, T] that a bool mask [n, T] marks."""
        return cls(values[mask], mask.sum(axis=1))

    def starts(self) -> np.ndarray:
        """Where each sequence begins in `values`: int [n]."""
        return np.cumsum(self.lengths) - self.lengths


@flax.struct.dataclass
class PackedRows:
    """Prompts and completions as the decoder computes them: M micro-batches of R rows of L tokens.

    Devices share the rows of a micro-batch. M is enough for sequences of full length, so that one
    compiled program serves every step. The layout is of [M, R, L]; its blocks are [M, R, n, J].
    """

    count: jax.Array  # int32 [], how many micro-batches hold anything; they are the first ones
    tokens: jax.Array  # int32 [M, R, L]; 0 where there is padding
    layout: PackedLayout
    targets: jax.Array  # int32 [M, R, L], the row's completion tokens, at its front; then 0
    states: jax.Array  # int32 [M, R, L], the place in the row whose state predicts each target
    scored: jax.Array  # bool [M, R, L], whether there is a target


class RowShape(NamedTuple):
    """The shape of packed rows."""

    parts: int  # micro-batches
    rows: int  # in each
    width: int  # tokens in a row
    block: int  # tokens of a block of attention
    reads: int  # how many blocks one reads at most


class Packing(NamedTuple):
    """What the host knows of packed rows."""

    rows: PackedRows  # still on the host
    source: np.ndarray  # int32 [M, R, L], a target's number among all completion tokens, or -1
    padding: float  # the share of computed tokens that are padding, or a prompt computed again

    def spread(self, values: np.ndarray) -> np.ndarray:
        """[total] -> [M, R, L]: puts each completion token's value at its target; 0 elsewhere."""
        packed = np.zeros(self.source.shape, values.dtype)
        packed[self.rows.scored] = values[self.source[self.rows.scored]]
        return packed

    def collect(self, packed: np.ndarray) -> np.ndarray:
        """[M, R, L] -> [total]: the inverse of `spread`."""
        values = np.zeros(self.rows.scored.sum(), packed.dtype)
        values[self.source[self.rows.scored]] = packed[self.rows.scored]
        return values


class _Piece(NamedTuple):
    """A prompt and some of its completions, in a row from the token `start` on."""

    start: int
    prompt: int
    completions: list[int]


def row_shapes(
    prompts: tuple[int, int], completions: tuple[int, int], rows: int, tokens: int
) -> list[RowShape]:
    """The three shapes, or fewer, that any batch within these limits is packed into, by width.

    Args:
      prompts: how many there are at most, and the most tokens of one.
      completions: the same; no prompt has more of them than its equal share.
      rows: rows of a micro-batch, a multiple of the devices that share them.
      tokens: a row's budget. A row has room for at least one prompt and one completion of full
        length, and is no longer than sequences of full length can fill.
    """
    (U, P), (N, T) = prompts, completions
    block = _SHORTEST
    while block < _LONGEST and 2 * block <= (P + T) / 4:
        block *= 2

    def blocks(tokens: int) -> int:
        return -(-tokens // block)

    per_prompt = -(-N // U)
    budget = min(tokens, blocks(-(-U // rows) * (P + per_prompt * T)) * block)
    widths = {max(blocks(P + T), blocks(share * budget // 16)) for share in _WIDTHS}
    reads = blocks(P) + blocks(T) + 2
    owners = np.repeat(np.arange(U), per_prompt)
    full = np.full(U, P), np.full(len(owners), T), owners
    return [
        RowShape(-(-len(_fill(*full, block * width)) // rows), rows, block * width, block, reads)
        for width in sorted(widths)
    ]


def pack(
    prompts: Ragged, completions: Ragged, owners: np.ndarray, shapes: Sequence[RowShape]
) -> Packing:
    """Packs U prompts and N completions into the shape that computes the fewest tokens.

    Among the shapes that compute at most a twentieth more, it takes the widest: a run should not
    change its program with every small change of lengths.

    Raises ValueError if a prompt and its completion are longer than the widest row.

    Args:
      owners: int [N], the prompt that each completion answers.
      shapes: of `row_shapes`, for limits that the sequences keep.
    """
    owners = np.asarray(owners, int)
    longest = int((prompts.lengths[owners] + completions.lengths).max(initial=0))
    if longest > shapes[0].width:
        raise ValueError(f"a prompt and its completion have {longest} tokens, over the limits")
    filled = [_fill(prompts.lengths, completions.lengths, owners, s.width) for s in shapes]
    computed = [
        -(-len(rows) // shape.rows) * shape.rows * shape.width
        for rows, shape in zip(filled, shapes, strict=True)
    ]
    best = max(i for i, n in enumerate(computed) if n <= _TOLERANCE * min(computed))
    rows, source = _lay_out(filled[best], prompts, completions, shapes[best])
    real = len(prompts.values) + len(completions.values)
    return Packing(rows, source, 1 - real / max(computed[best], 1))


def _fill(
    prompt_lengths: np.ndarray, completion_lengths: np.ndarray, owners: np.ndarray, width: int
) -> list[list[_Piece]]:
    """The pieces of each row; rows are filled one after another.

    A row takes the largest prompt that fits with all of its completions. If none fits, it takes a
    prompt with part of its completions, of one of the largest. The rest will need the prompt again,
    so the part must have more completion tokens than the prompt has, or begin the row.
    """
    prompts, lengths = prompt_lengths.tolist(), completion_lengths.tolist()
    waiting: list[list[int]] = [[] for _ in prompts]
    for n in np.argsort(-completion_lengths, kind="stable").tolist():
        waiting[owners[n]].append(n)  # the longest first
    # (tokens of a prompt and of all its waiting completions, the prompt), in ascending order.
    sizes = sorted(
        (prompts[u] + sum(lengths[n] for n in own), u) for u, own in enumerate(waiting) if own
    )
    rows: list[list[_Piece]] = []
    end = width
    while sizes:
        chosen = bisect_right(sizes, (width - end, inf)) - 1
        if chosen >= 0:
            size, u = sizes.pop(chosen)
            taken, tokens = waiting[u], size - prompts[u]
        else:
            parts = [
                (size, u, *_fitting(waiting[u], lengths, width - end - prompts[u]))
                for size, u in sizes[-_TRIED:]
            ]
            size, u, taken, tokens = max(parts, key=lambda part: part[3] - prompts[part[1]])
            if tokens <= prompts[u] and end:
                rows.append([])
                end = 0
                continue
            del sizes[bisect_left(sizes, (size, u))]
            kept = set(taken)
            waiting[u] = [n for n in waiting[u] if n not in kept]
            insort(sizes, (size - tokens, u))
        rows[-1].append(_Piece(end, u, taken))
        end += prompts[u] + tokens
    return rows


def _fitting(candidates: list[int], lengths: list[int], room: int) -> tuple[list[int], int]:
    """The candidates that fit into `room` tokens, taken in order; and the tokens that they take."""
    taken, used = [], 0
    for n in candidates:
        if used + lengths[n] <= room:
            taken.append(n)
            used += lengths[n]
    return taken, used


def _lay_out(
    filled: list[list[_Piece]], prompts: Ragged, completions: Ragged, shape: RowShape
) -> tuple[PackedRows, np.ndarray]:
    """The arrays of rows that hold these pieces, and `Packing.source`."""
    count = -(-len(filled) // shape.rows)
    # Shorter sequences can, in theory, be harder to pack than full ones.
    size = max(count, shape.parts), shape.rows
    tokens, positions, states = np.zeros((3, size[0] * size[1], shape.width), np.int32)
    sequence, prompt, source = np.full((3, *tokens.shape), -1, np.int32)
    blocks = np.full((len(tokens), shape.width // shape.block, shape.reads), -1, np.int32)
    places = np.arange(shape.width, dtype=np.int32)
    flat_places = np.arange(len(completions.values), dtype=np.int32)
    prompt_at, completion_at = prompts.starts().tolist(), completions.starts().tolist()
    prompt_lengths, lengths = prompts.lengths.tolist(), completions.lengths.tolist()

    for r, pieces in enumerate(filled):
        number = target = 0
        for start, u, taken in pieces:
            own, P, at = number, prompt_lengths[u], prompt_at[u]
            end = start + P
            tokens[r, start:end] = prompts.values[at : at + P]
            positions[r, start:end] = places[:P]
            sequence[r, start:end] = own
            _list_blocks(blocks[r], shape.block, (start, end), (start, end))
            for n in taken:
                number, begin, T, at = number + 1, end, lengths[n], completion_at[n]
                end += T
                tokens[r, begin:end] = completions.values[at : at + T]
                positions[r, begin:end] = places[P : P + T]
                sequence[r, begin:end] = number
                _list_blocks(blocks[r], shape.block, (begin, end), (start, start + P))
                source[r, target : target + T] = flat_places[at : at + T]
                # A token is predicted by the one before it: the first, by the prompt's last.
                states[r, target : target + T] = places[begin - 1 : end - 1]
                states[r, target : target + min(T, 1)] = start + P - 1
                target += T
            prompt[r, start:end] = own
            number += 1

    scored = source >= 0
    targets = np.zeros_like(tokens)
    targets[scored] = completions.values[source[scored]]
    layout = PackedLayout(positions, sequence, prompt, blocks)
    flat = tokens, layout, targets, states, scored, source
    tokens, layout, targets, states, scored, source = jax.tree.map(
        lambda x: x.reshape(*size, *x.shape[1:]), flat
    )
    return PackedRows(np.int32(count), tokens, layout, targets, states, scored), source


def _list_blocks(
    blocks: np.ndarray, block: int, sequence: tuple[int, int], prompt: tuple[int, int]
) -> None:
    """Writes to blocks int32 [n, J] of a row what the blocks of queries in a sequence read.

    A block of queries reads the prompt of the sequence in which it begins, and everything from the
    start of that sequence to itself. Where another sequence starts later in the block, that one's
    tokens before the queries are in the same block, and its prompt is there too or is read anyway.
    `sequence` and `prompt` are (start, end) in the row.
    """
    first = sequence[0] // block
    of_prompt = range(prompt[0] // block, min((prompt[1] - 1) // block + 1, first))
    for i in range(-(-sequence[0] // block), -(-sequence[1] // block)):
        read = [*of_prompt, *range(first, i + 1)]
        blocks[i, : len(read)] = read

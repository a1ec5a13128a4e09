"""Packs prompts and their completions into rows of a token budget, with next to no padding.

A row holds prompts. Each is followed by those of its completions that are computed with it, so a
prompt is computed once in a row for all of them. The host decides what a row holds and sends the
numbers themselves; the update, the scores and the likelihoods all read these rows.
"""

from bisect import bisect_right, insort
from collections.abc import Callable, Sequence
from math import inf
from typing import NamedTuple

import flax.struct
import jax
import numpy as np

from permix_jax.models.packed_attention import PackedLayout

_SHORTEST, _LONGEST = 8, 128  # tokens of a block
# Each width is a program to compile. In the steps of tests/models/test_packing.py these three, in
# sixteenths of the token budget, leave 7 % of the computed tokens empty, nine widths leave 5 %.
_WIDTHS = (9, 10, 16)
_TOLERANCE = 1.05
_TRIED = 12  # groups that a part is looked for in


class Ragged(NamedTuple):
    """Sequences of different lengths, one after another: values [total], lengths int [n]."""

    values: np.ndarray
    lengths: np.ndarray

    @classmethod
    def of(cls, sequences: Sequence[Sequence[int]]) -> "Ragged":
        lengths = np.array([len(one) for one in sequences], int)
        values = np.fromiter((token for one in sequences for token in one), np.int32)
        return cls(values, lengths)

    @classmethod
    def masked(cls, values: np.ndarray, mask: np.ndarray) -> "Ragged":
        """The sequences of an array [n, T] that a bool mask [n, T] marks."""
        return cls(values[mask], mask.sum(axis=1))


@flax.struct.dataclass
class PackedRows:
    """Prompts and completions as the decoder computes them: M micro-batches of R rows of L tokens.

    Devices share the rows of a micro-batch. M is what sequences of full length would take, so
    that one compiled program serves every step.

    Attributes:
      count: int32 [], how many micro-batches hold anything; they are the first ones.
      tokens: int32 [M, R, L]; 0 where there is padding.
      layout: positions, sequence, prompt [M, R, L]; blocks [M, R, n, J].
      targets: int32 [M, R, L], the completion tokens of the row, the first ones of the row; then 0.
      states: int32 [M, R, L], the place in the row whose hidden state predicts each target.
      scored: bool [M, R, L], whether a target stands there.
    """

    count: jax.Array
    tokens: jax.Array
    layout: PackedLayout
    targets: jax.Array
    states: jax.Array
    scored: jax.Array


class RowShape(NamedTuple):
    """The shape of packed rows.

    Attributes:
      parts: micro-batches. rows: rows in each. width: tokens in a row.
      block: tokens of a block of attention. reads: how many blocks one reads at most.
    """

    parts: int
    rows: int
    width: int
    block: int
    reads: int


class Packing(NamedTuple):
    """What the host knows of packed rows.

    Attributes:
      rows: the arrays, still on the host.
      source: int32 [M, R, L], which of the flat completion tokens each target is; -1: none.
      padding: the share of computed tokens that are padding, or a prompt that is computed again.
    """

    rows: PackedRows
    source: np.ndarray
    padding: float

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Values [total] of the flat completion tokens, as [M, R, L] beside the targets; 0 else."""
        packed = np.zeros(self.source.shape, values.dtype)
        there = self.source >= 0
        packed[there] = values[self.source[there]]
        return packed

    def collect(self, packed: np.ndarray) -> np.ndarray:
        """The inverse of `spread`: [M, R, L] -> [total]."""
        there = self.source >= 0
        values = np.zeros(there.sum(), packed.dtype)
        values[self.source[there]] = packed[there]
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
      completions: the same; each prompt has equally many of them at most.
      rows: rows of a micro-batch; the devices that share them divide it.
      tokens: a row's budget. A row always has room for one prompt and one completion of full
        length, and is no longer than full-length sequences can fill.
    """
    (U, P), (N, T) = prompts, completions
    block = _SHORTEST
    while block < _LONGEST and 2 * block <= (P + T) / 4:
        block *= 2

    def blocks(tokens: int) -> int:
        return -(-tokens // block)

    of_prompt = -(-N // U)
    most = blocks(-(-U // rows) * (P + of_prompt * T))
    budget = min(tokens, most * block)
    widths = {max(blocks(P + T), blocks(share * budget // 16)) for share in _WIDTHS}
    reads = blocks(P) + blocks(T) + 2
    owners = np.repeat(np.arange(U), of_prompt)
    full = np.full(U, P), np.full(len(owners), T), owners
    return [
        RowShape(-(-len(_fill(*full, block * width)) // rows), rows, block * width, block, reads)
        for width in sorted(widths)
    ]


def pack(
    prompts: Ragged, completions: Ragged, owners: np.ndarray, shapes: Sequence[RowShape]
) -> Packing:
    """Packs U prompts and N completions into the shape that computes the fewest tokens.

    The widest shape wins among those that compute at most a twentieth more: a run should not
    change its program with every small change of lengths.

    Args:
      owners: int [N], the prompt that each completion answers.
      shapes: of `row_shapes`, for limits that the sequences keep.

    Raises:
      ValueError: a prompt and its completion are longer than the widest row.
    """
    lengths = prompts.lengths, completions.lengths, np.asarray(owners, int)
    longest = int((prompts.lengths[lengths[2]] + completions.lengths).max(initial=0))
    if longest > shapes[0].width:
        raise ValueError(f"a prompt and its completion have {longest} tokens, over the limits")
    filled = [_fill(*lengths, shape.width) for shape in shapes]
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

    A row takes the largest prompt that fits with all of its completions. Where none fits, it takes
    a part of one of the largest. A part computes its prompt once more, so it must hold more
    completion tokens than that, or begin the row.
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
                (i, *_that_fit(waiting[u], lengths, width - end - prompts[u]))
                for i, (_, u) in enumerate(sizes[-_TRIED:], max(0, len(sizes) - _TRIED))
            ]
            chosen, taken, tokens = max(
                parts, key=lambda part: part[2] - prompts[sizes[part[0]][1]]
            )
            if tokens <= prompts[sizes[chosen][1]] and end:
                rows.append([])
                end = 0
                continue
            size, u = sizes.pop(chosen)
            kept = set(taken)
            waiting[u] = [n for n in waiting[u] if n not in kept]
            insort(sizes, (size - tokens, u))
        rows[-1].append(_Piece(end, u, taken))
        end += prompts[u] + tokens
    return rows


def _that_fit(candidates: list[int], lengths: list[int], room: int) -> tuple[list[int], int]:
    """The completions, the longest first, that fit into `room` tokens; and the tokens they take."""
    taken, used = [], 0
    for n in candidates:
        if used + lengths[n] <= room:
            taken.append(n)
            used += lengths[n]
    return taken, used


class _Sequences(NamedTuple):
    """The prompts and completions of all rows; int arrays with one entry for each.

    Attributes:
      row, start, length: where the sequence stands.
      source: where its tokens begin among the flat prompts, followed by the flat completions.
      number, prompt: its number in the row; that of its prompt.
      prompt_start, prompt_length: where that prompt stands; a prompt is its own.
    """

    row: np.ndarray
    start: np.ndarray
    length: np.ndarray
    source: np.ndarray
    number: np.ndarray
    prompt: np.ndarray
    prompt_start: np.ndarray
    prompt_length: np.ndarray


def _lay_out(
    filled: list[list[_Piece]], prompts: Ragged, completions: Ragged, shape: RowShape
) -> tuple[PackedRows, np.ndarray]:
    """The arrays of rows that hold these pieces, and `Packing.source`."""
    count = -(-len(filled) // shape.rows)
    # Shorter sequences can, in theory, be harder to pack than full ones.
    parts = max(count, shape.parts)
    s = _sequences(filled, prompts.lengths, completions.lengths)
    flat = np.concatenate([prompts.values, completions.values])

    def in_rows(chosen: np.ndarray, *values: np.ndarray, empty: int) -> list[np.ndarray]:
        """Values of the tokens of chosen sequences, which fill each row from its first slot."""
        used = np.bincount(s.row[chosen], s.length[chosen], parts * shape.rows)
        there = np.arange(shape.width) < used[:, None]
        arrays = []
        for value in values:
            array = (
                np.full(there.shape, empty, np.int32) if empty else np.zeros(there.shape, np.int32)
            )
            array[there] = value
            arrays.append(array.reshape(parts, shape.rows, shape.width))
        return arrays

    every = np.ones(len(s.row), bool)
    each, place = _of_tokens(s.length)
    (tokens,) = in_rows(every, flat[each(s.source) + place], empty=0)
    # A completion goes on from its prompt.
    is_completion = s.number != s.prompt
    (positions,) = in_rows(every, each(s.prompt_length * is_completion) + place, empty=0)
    sequence, prompt = in_rows(every, each(s.number), each(s.prompt), empty=-1)

    each, place = _of_tokens(s.length[is_completion])
    at = each(s.source[is_completion]) + place
    # A token is predicted where the one before it stands: the first, at the end of the prompt.
    last_of_prompt, start = s.prompt_start + s.prompt_length - 1, s.start
    states = np.where(
        place == 0, each(last_of_prompt[is_completion]), each(start[is_completion]) + place - 1
    )
    targets, states = in_rows(is_completion, flat[at], states, empty=0)
    (source,) = in_rows(is_completion, at - len(prompts.values), empty=-1)

    blocks = _blocks(s, shape, parts * shape.rows).reshape(parts, shape.rows, -1, shape.reads)
    layout = PackedLayout(positions, sequence, prompt, blocks)
    return PackedRows(np.int32(count), tokens, layout, targets, states, source >= 0), source


def _sequences(
    filled: list[list[_Piece]], prompt_lengths: np.ndarray, completion_lengths: np.ndarray
) -> _Sequences:
    prompts, lengths = prompt_lengths.tolist(), completion_lengths.tolist()
    sources = np.concatenate([[0], np.cumsum([*prompts, *lengths])]).tolist()
    entries: list[tuple[int, ...]] = []
    for r, pieces in enumerate(filled):
        number = 0
        for start, u, taken in pieces:
            p, own_prompt, end = prompts[u], number, start + prompts[u]
            entries.append((r, start, p, sources[u], number, own_prompt, start, p))
            for n in taken:
                number += 1
                source = sources[len(prompts) + n]
                entries.append((r, end, lengths[n], source, number, own_prompt, start, p))
                end += lengths[n]
            number += 1
    return _Sequences(*np.array(entries, np.int32).reshape(-1, len(_Sequences._fields)).T)


def _blocks(s: _Sequences, shape: RowShape, rows: int) -> np.ndarray:
    """The blocks that each block of queries reads, int32 [rows, n, reads], -1 behind the last.

    The sequence in which a block begins decides: the block reads its prompt, and everything from
    the begin of the sequence to itself. A sequence that begins later in the block has its own
    beginning there, and its prompt there or among what is read.
    """
    block, n = shape.block, shape.width // shape.block
    first_block, end_block = -(-s.start // block), -(-(s.start + s.length) // block)
    begin_here = np.maximum(end_block - first_block, 0)
    each, place = _of_tokens(begin_here)
    which, i = each(np.arange(len(begin_here))), each(first_block) + place
    own = s.start[which] // block
    prompt_first = s.prompt_start[which] // block
    prompt_last = (s.prompt_start + s.prompt_length - 1)[which] // block
    # Blocks of the prompt before the sequence's own.
    of_prompt = np.maximum(np.minimum(prompt_last, own - 1) - prompt_first + 1, 0)
    j = np.arange(shape.reads)
    reads = np.where(
        j < of_prompt[:, None], prompt_first[:, None] + j, (own - of_prompt)[:, None] + j
    )
    blocks = np.full((rows, n, shape.reads), -1, np.int32)
    blocks[s.row[which], i] = np.where(reads <= i[:, None], reads, -1)
    return blocks


def _of_tokens(lengths: np.ndarray) -> tuple[Callable, np.ndarray]:
    """For the tokens of sequences of these lengths: what gives each token its sequence's number,
    and the place int32 of each token in its sequence."""
    begins = np.cumsum(lengths) - lengths

    def each(numbers: np.ndarray) -> np.ndarray:
        return np.repeat(numbers.astype(np.int32), lengths)

    return each, np.arange(lengths.sum(), dtype=np.int32) - each(begins)

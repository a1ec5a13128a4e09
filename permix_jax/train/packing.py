"""Rollouts of many lengths in micro-batches of one shape: packed row by row, almost unpadded.

A row holds prompts, each followed by those of its completions that are computed with it
(`PackedLayout`), so a prompt is computed once a row for all of them. What a row holds is decided
here, on the host; the device looks the tokens up.
"""

from typing import NamedTuple

import flax.struct
import jax
import numpy as np

from permix_jax.models.packed_attention import PackedLayout

_SHORTEST, _LONGEST = 8, 128  # of a block of tokens
_WIDTHS = range(8, 17)  # of micro-batches, in sixteenths of the widest
_TOLERANCE = 1.05


@flax.struct.dataclass
class Packing:
    """Where the tokens of a batch of U prompts [U, P] and N completions [N, T] are computed.

    M micro-batches of R rows of L tokens; M is what completions of full length would take.

    Attributes:
      count: int32 [], the micro-batches that hold anything; the first ones.
      tokens: int32 [M, R, L], which token stands there: of the flat prompts, followed by the flat
        completions; 0 where there is padding.
      tree: positions, sequence, prompt [M, R, L]; blocks [M, R, n, J].
      targets: int32 [M, R, L], the flat completion tokens of the row, and N * T behind the last.
      states: int32 [M, R, L], where in the row stands the state that predicts each of them.
    """

    count: jax.Array
    tokens: jax.Array
    tree: PackedLayout
    targets: jax.Array
    states: jax.Array


class Shape(NamedTuple):
    """Of packed rows: `rows` a micro-batch, each of `width` tokens in blocks of `block`, of which a
    query reads at most `reads`."""

    rows: int
    width: int
    block: int
    reads: int


class _Piece(NamedTuple):
    """A prompt and some of its completions, in a row from the token `start` on."""

    start: int
    prompt: int
    completions: list[int]


def packed_shapes(
    prompts: tuple[int, int], completions: tuple[int, int], rows: int, tokens: int
) -> list[Shape]:
    """The shapes that batches of [U, P] prompts and [N, T] completions are packed into, by width.

    Of `rows` rows a micro-batch, each of at most `tokens` tokens, but with room for a prompt and a
    completion of full length, and no longer than completions of full length fill.
    """
    (U, P), (N, T) = prompts, completions
    block = _SHORTEST
    while block < _LONGEST and 2 * block <= (P + T) / 4:
        block *= 2
    up = lambda n: -(-n // block)  # noqa: E731
    least, most = up(P + T), up(-(-U // rows) * (P + N // U * T))
    widths = {max(least, up(share * min(tokens, most * block) // 16)) for share in _WIDTHS}
    return [Shape(rows, block * width, block, up(P) + up(T) + 2) for width in sorted(widths)]


def pack(prompt_mask: np.ndarray, completion_mask: np.ndarray, shapes: list[Shape]) -> Packing:
    """Packs the rollouts with masks [U, P] and [N, T] into whichever shape computes least.

    A wider one that computes at most a twentieth more is preferred: each shape that a run takes is
    a program to compile, so that it should not change with every small change of lengths.
    """
    lengths = prompt_mask.sum(axis=1), completion_mask.sum(axis=1)
    computed = [_parts(_fill(*lengths, shape), shape) * shape.width for shape in shapes]
    good = [i for i, tokens in enumerate(computed) if tokens <= _TOLERANCE * min(computed)]
    return pack_into(shapes[good[-1]], prompt_mask, completion_mask)


def pack_into(shape: Shape, prompt_mask: np.ndarray, completion_mask: np.ndarray) -> Packing:
    """As `pack`, into one shape."""
    (_, P), (N, T) = prompt_mask.shape, completion_mask.shape
    prompt_lengths, completion_lengths = prompt_mask.sum(axis=1), completion_mask.sum(axis=1)
    rows = _fill(prompt_lengths, completion_lengths, shape)
    full = _fill(np.full_like(prompt_lengths, P), np.full_like(completion_lengths, T), shape)
    used = _parts(rows, shape)
    parts = max(used, _parts(full, shape))

    size = parts * shape.rows, shape.width
    tokens, positions, states = (np.zeros(size, np.int32) for _ in range(3))
    sequence, prompt = np.full(size, -1, np.int32), np.full(size, -1, np.int32)
    targets = np.full(size, N * T, np.int32)
    blocks = np.full((size[0], shape.width // shape.block, shape.reads), -1, np.int32)
    for r, pieces in enumerate(rows):
        next_target = next_sequence = 0
        for piece in pieces:
            p = prompt_lengths[piece.prompt]
            at = np.s_[r, piece.start : piece.start + p]
            tokens[at] = piece.prompt * P + np.arange(p)
            positions[at] = np.arange(p)
            sequence[at] = prompt[at] = own_prompt = next_sequence
            next_sequence += 1
            starts, end = [piece.start], piece.start + p
            for n in piece.completions:
                t = completion_lengths[n]
                at = np.s_[r, end : end + t]
                flat = n * T + np.arange(t)
                tokens[at] = prompt_mask.size + flat
                positions[at] = p + np.arange(t)
                sequence[at], prompt[at] = next_sequence, own_prompt
                at = np.s_[r, next_target : next_target + t]
                targets[at] = flat
                # A token is predicted where the one before it stands, the first by the prompt.
                states[at] = np.arange(end - 1, end - 1 + t)
                states[at][:1] = piece.start + p - 1
                next_target, next_sequence = next_target + t, next_sequence + 1
                starts.append(end)
                end += t
            _list_blocks(blocks[r], piece.start, p, starts, end, shape.block)

    by_part = lambda x: x.reshape(parts, shape.rows, *x.shape[1:])  # noqa: E731
    tree = PackedLayout(*map(by_part, (positions, sequence, prompt, blocks)))
    return Packing(np.int32(used), by_part(tokens), tree, by_part(targets), by_part(states))


def padding_share(packing: Packing, prompt_mask: np.ndarray, completion_mask: np.ndarray) -> float:
    """The share of computed tokens that are padding, or a prompt that was computed before."""
    computed = int(packing.count) * packing.tokens[0].size
    return 1 - float(prompt_mask.sum() + completion_mask.sum()) / computed


def _parts(rows: list, shape: Shape) -> int:
    return -(-len(rows) // shape.rows)


def _fill(
    prompt_lengths: np.ndarray, completion_lengths: np.ndarray, shape: Shape
) -> list[list[_Piece]]:
    """The pieces of each row, filled one after another: a row takes the largest prompt that fits
    with all of its completions, and where none does, a part of one.

    A part computes its prompt once more, and so must hold more tokens than that.
    """
    prompts, lengths = prompt_lengths.tolist(), completion_lengths.tolist()
    samples = len(lengths) // len(prompts)
    of_prompt = lambda u: range(u * samples, (u + 1) * samples)  # noqa: E731
    left = {u: sorted(of_prompt(u), key=lambda n: -lengths[n]) for u in range(len(prompts))}
    sizes = {u: prompts[u] + sum(lengths[n] for n in own) for u, own in left.items()}
    rows, end = [[]], 0
    while left:
        room = shape.width - end
        whole = [u for u in left if sizes[u] <= room]
        if whole:
            u = max(whole, key=sizes.get)
            taken, tokens = left.pop(u), sizes[u] - prompts[u]
        else:
            parts = {u: _that_fit(own, lengths, room - prompts[u]) for u, own in left.items()}
            u = max(parts, key=lambda u: parts[u][1] - prompts[u])
            taken, tokens = parts[u]
            if tokens <= prompts[u] and rows[-1]:
                rows.append([])
                end = 0
                continue
            left[u] = [n for n in left[u] if n not in taken]
            sizes[u] -= tokens
        rows[-1].append(_Piece(end, u, taken))
        end += prompts[u] + tokens
    return rows


def _that_fit(candidates: list[int], lengths: list[int], room: int) -> tuple[list[int], int]:
    """Those of the completions, longest first, that fit into `room` tokens, and what they take."""
    taken, used = [], 0
    for n in candidates:
        if used + lengths[n] <= room:
            taken.append(n)
            used += lengths[n]
    return taken, used


def _list_blocks(
    blocks: np.ndarray, start: int, prompt: int, starts: list[int], end: int, block: int
) -> None:
    """Writes into `blocks` [n, J] what each block of queries that begins in a piece reads: of the
    sequence that it begins in the prompt, and all from there up to itself.

    It needs nothing else: whatever begins later in it lies in it.
    """
    prompt_blocks = range(start // block, (start + prompt - 1) // block + 1)
    for i in range(-(-start // block), (end - 1) // block + 1):
        first = max(begin for begin in starts if begin <= i * block)
        reads = sorted({*range(first // block, i + 1), *(j for j in prompt_blocks if j <= i)})
        blocks[i, : len(reads)] = reads

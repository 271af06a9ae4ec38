"""Near-duplicates by MinHash, in 64 bytes a row: one byte of each of 64 hashes. Pure.

Texts are compared by their 5-byte shingles, case and blanks aside. Four bytes side by side are a band; two texts of
Jaccard similarity s share one of the 16 bands with a chance of 1 - (1 - s^4)^16: 0.9998 at 0.8. A found pair
counts only if its 64 bytes agree as often as those of texts that are alike enough. What is alike through a third is
alike (single linkage).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

Words32 = NDArray[np.uint32]
Bytes = NDArray[np.uint8]
Whole = NDArray[np.int32]

HASHES = 64
_SHINGLE = 5
#: Longer texts are compared by their beginning and their end.
_BYTES_MAX = 4096
#: Sets the bands of rows apart that must never be found alike.
_APART = np.uint32(0x9E3779B9)
#: Pairs that are compared at once, to bound memory.
_AT_ONCE = 1 << 15
_FACTORS = np.random.default_rng(20_260_101)
_A = (_FACTORS.integers(0, 1 << 32, HASHES, dtype=np.uint64) | 1).astype(np.uint32)[:, None]
_B = _FACTORS.integers(0, 1 << 32, HASHES, dtype=np.uint64).astype(np.uint32)[:, None]


def sketched(text: str) -> Bytes:
    """The 64 bytes that a text is compared by."""
    return sketched_normal(normal(text))


def sketched_normal(text: str) -> Bytes:
    """The same of a text that is `normal` already."""
    hashed = _A * _shingles(text)
    hashed += _B
    return _mixed(hashed.min(axis=1)).astype(np.uint8)


def alike(sketches: Bytes, least: float, kinds: Bytes | None = None) -> Whole:
    """For each row the first row that it is nearly the same as, or itself. Rows of two kinds are never the same."""
    bands = sketches.view(np.uint32)
    parent = np.arange(bands.shape[0], dtype=np.int32)
    agree = HASHES * (least + (1.0 - least) / 256)  # bytes agree by chance as well
    for band in range(bands.shape[1]):
        column = bands[:, band].copy()
        if kinds is not None:
            column += kinds.astype(np.uint32) * _APART
        order = np.argsort(column, kind="stable").astype(np.int32)
        for one, other in _neighbours(column, order):
            roots_one, roots_other = _roots(parent, one), _roots(parent, other)
            open_ = roots_one != roots_other
            one, other = one[open_], other[open_]
            same = (sketches[one] == sketches[other]).sum(axis=1) >= agree
            _join(parent, one[same], other[same])
    return _roots(parent, np.arange(parent.size, dtype=np.int32))


def similarity(one: Bytes, other: Bytes) -> float:
    """What two sketches say of two texts' Jaccard similarity."""
    share = float((one == other).mean())
    return max(0.0, (share - 1 / 256) / (1 - 1 / 256))


def normal(text: str) -> str:
    """A text as it is compared: case and blanks aside."""
    return " ".join(text.casefold().split())


def _shingles(text: str) -> Words32:
    raw = text.encode("utf-8", "replace")
    if len(raw) > _BYTES_MAX:
        raw = raw[: _BYTES_MAX // 2] + raw[-_BYTES_MAX // 2 :]
    data = np.frombuffer(raw.ljust(_SHINGLE, b"\0"), np.uint8).astype(np.uint32)
    size = data.size - _SHINGLE + 1
    hashed = data[:size].copy()
    for place in range(1, _SHINGLE):
        hashed *= np.uint32(0x01000193)
        hashed += data[place : place + size]
    return _mixed(hashed)


def _mixed(values: Words32) -> Words32:
    """Every bit of the result depends on every bit of the value (the end of MurmurHash3)."""
    mixed = values ^ (values >> np.uint32(16))
    mixed *= np.uint32(0x85EBCA6B)
    mixed ^= mixed >> np.uint32(13)
    mixed *= np.uint32(0xC2B2AE35)
    mixed ^= mixed >> np.uint32(16)
    return mixed


def _neighbours(column: Words32, order: Whole) -> Iterator[tuple[Whole, Whole]]:
    """Pairs of rows that share a band, some at a time: each with the one before it, and with the first of its run."""
    first = 0  # where the run that a slice begins in began
    for start in range(0, order.size, _AT_ONCE):
        rows = order[max(0, start - 1) : start + _AT_ONCE]
        keys = column[rows]
        same = keys[1:] == keys[:-1]
        if not same.any():
            first = start + _AT_ONCE - 1
            continue
        places = np.arange(max(0, start - 1), max(0, start - 1) + rows.size)
        begins = np.where(np.concatenate(([start == 0], ~same)), places, first)
        heads = np.maximum.accumulate(begins)
        first = int(heads[-1])
        yield rows[1:][same], rows[:-1][same]
        yield rows[1:][same], order[heads[1:][same]]


def _roots(parent: Whole, rows: Whole) -> Whole:
    roots = parent[rows]
    while True:
        further = parent[roots]
        if np.array_equal(further, roots):
            break
        roots = further
    parent[rows] = roots
    return roots


def _join(parent: Whole, one: Whole, other: Whole) -> None:
    """Put each pair together, under the lower number."""
    while one.size:
        a, b = _roots(parent, one), _roots(parent, other)
        open_ = a != b
        one, other, a, b = one[open_], other[open_], a[open_], b[open_]
        np.minimum.at(parent, np.maximum(a, b), np.minimum(a, b))

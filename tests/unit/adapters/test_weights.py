"""The safetensors reader: what it takes, what it refuses, and that it never takes what the library refuses."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.errors import BadWeights
from adapters.weights import BITS, Tensor, product_norm, read_header, read_integers, scan

if TYPE_CHECKING:
    from tests.unit.adapters.conftest import Specimens


def written(folder: Path, content: bytes) -> Path:
    path = folder / "file.safetensors"
    path.write_bytes(content)
    return path


def library(raw: bytes) -> dict[str, list[int]]:
    """What the safetensors library makes of the file. Raises SafetensorError."""
    return {name: value["shape"] for name, value in safetensors.deserialize(raw)}  # type: ignore[no-untyped-call]


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def test_the_header_says_where_everything_is(tmp_path: Path, specimens: Specimens) -> None:
    raw = specimens.safetensors({"a": specimens.floats(2, 3), "b": specimens.floats(4, dtype="BF16")}, {"format": "pt"})
    header = read_header(written(tmp_path, raw))
    assert header.metadata == {"format": "pt"}
    assert header.size == len(raw)
    assert header.tensors["b"] == Tensor(name="b", dtype="BF16", shape=(4,), start=len(raw) - 8, end=len(raw))


@pytest.mark.parametrize(
    ("head", "data", "says"),
    [
        (b"", b"", "does not begin"),
        (b" {}", b"", "does not begin"),
        (b"\x80\x04}", b"", "does not begin"),
        (b"{", b"", "not JSON"),
        (b"{}x", b"", "not JSON"),
        (b'{"\xff": 1}', b"", "not JSON"),
        (b'{"a": NaN}', b"", "NaN"),
        (b"{" + b'"a":{' * 50_000, b"", "deeply"),
        (json.dumps({"a": 1}).encode(), b"", "exactly dtype"),
        (json.dumps({"a": {**entry(), "more": 1}}).encode(), bytes(8), "exactly dtype"),
        (json.dumps({"a": entry("F32", [2], [0, 8])}).encode(), bytes(7), "truncated"),
        (json.dumps({"a": entry("F32", [2], [0, 8])}).encode(), bytes(9), "follow the last"),
        (json.dumps({"a": entry("F32", [3], [0, 8])}).encode(), bytes(8), "needs 12"),
        (json.dumps({"a": entry("F33")}).encode(), bytes(8), "unknown element type"),
        (json.dumps({"a": entry(["F32"])}).encode(), bytes(8), "unknown element type"),
        (json.dumps({"a": entry("F32", [-2], [0, 8])}).encode(), bytes(8), "not lists of sizes"),
        (json.dumps({"a": entry("F32", [True, 2], [0, 8])}).encode(), bytes(8), "not lists of sizes"),
        (json.dumps({"a": entry("F32", [2.0], [0, 8])}).encode(), bytes(8), "not lists of sizes"),
        (json.dumps({"a": entry("F32", [2], [0])}).encode(), bytes(8), "not lists of sizes"),
        (json.dumps({"a": entry("F32", [2], [8, 0])}).encode(), bytes(8), "takes -8"),
        (json.dumps({"a": entry("F32", [1 << 62, 4], [0, 0])}).encode(), b"", "not lists of sizes"),
        (json.dumps({"a": entry("F4", [1], [0, 1])}).encode(), bytes(1), "needs 0.5"),
        (json.dumps({"a": entry("F32", [1], [4, 8])}).encode(), bytes(8), "hole"),
        (json.dumps({"a": entry(), "b": entry()}).encode(), bytes(8), "overlaps"),
        (json.dumps({"a": entry(), "b": entry("F32", [2], [4, 12])}).encode(), bytes(12), "overlaps"),
        (b'{"a": %b, "a": %b}' % ((json.dumps(entry()).encode(),) * 2), bytes(8), "twice"),
        (json.dumps({"__metadata__": {"a": 1}}).encode(), b"", "__metadata__"),
        (json.dumps({"__metadata__": []}).encode(), b"", "__metadata__"),
        (json.dumps({"a\nb": entry()}).encode(), bytes(8), "printable"),
        (json.dumps({"": entry()}).encode(), bytes(8), "printable"),
        (json.dumps({"a" * 2000: entry()}).encode(), bytes(8), "printable"),
    ],
)
def test_odd_headers_are_refused(head: bytes, data: bytes, says: str, tmp_path: Path, specimens: Specimens) -> None:
    with pytest.raises(BadWeights, match=says):
        read_header(written(tmp_path, specimens.pack(head, data)))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "ends after 0"),
        (b"\0" * 7, "ends after 7"),
        (b"\xff" * 8, "at most"),
        ((100).to_bytes(8, "little") + b"{}", "truncated"),
    ],
)
def test_files_without_a_whole_header_are_refused(content: bytes, says: str, tmp_path: Path) -> None:
    with pytest.raises(BadWeights, match=says):
        read_header(written(tmp_path, content))


def test_headers_beyond_the_limits_are_refused(tmp_path: Path, specimens: Specimens) -> None:
    path = written(tmp_path, specimens.safetensors({name: specimens.floats(1) for name in "abc"}))
    with pytest.raises(BadWeights, match="at most 2"):
        read_header(path, tensors_max=2)
    with pytest.raises(BadWeights, match="at most 10"):
        read_header(path, header_bytes_max=10)


def test_every_element_type_is_one_that_the_library_knows(tmp_path: Path) -> None:
    for dtype in BITS:
        document = {"a": {"dtype": dtype, "shape": [8], "data_offsets": [0, BITS[dtype]]}}
        head = json.dumps(document).encode()
        raw = len(head).to_bytes(8, "little") + head + bytes(BITS[dtype])
        assert read_header(written(tmp_path, raw)).tensors["a"].dtype == dtype
        assert library(raw)


SHAPES = st.lists(st.integers(0, 4), max_size=3)
PIECES = st.lists(st.tuples(st.sampled_from([*BITS]), SHAPES), max_size=3)
TWISTS = st.none() | st.tuples(
    st.integers(0, 2), st.sampled_from(["dtype", "shape", "begin", "end"]), st.integers(-9, 9)
)


def twisted(pieces: list[tuple[str, list[int]]], twist: tuple[int, str, int] | None) -> tuple[dict[str, Any], int]:
    """A header that is right but for one thing, and how many bytes of data it needs."""
    document: dict[str, Any] = {}
    start = 0
    for number, (dtype, shape) in enumerate(pieces):
        end = start + math.prod(shape) * BITS[dtype] // 8
        document[str(number)] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
        start = end
    if twist is not None and (entry := document.get(str(twist[0]))) is not None:
        _, what, by = twist
        if what == "dtype":
            entry["dtype"] = [*BITS][by]
        elif what == "shape":
            entry["shape"] = [*entry["shape"], by]
        else:
            entry["data_offsets"][what == "end"] += by
    return document, start


@pytest.mark.slow
@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=PIECES, twist=TWISTS, more=st.just(0) | st.integers(-3, 3))
def test_what_is_accepted_here_the_library_accepts_too(
    pieces: list[tuple[str, list[int]]], twist: tuple[int, str, int] | None, more: int, tmp_path: Path
) -> None:
    document, size = twisted(pieces, twist)
    head = json.dumps(document).encode()
    raw = len(head).to_bytes(8, "little") + head + bytes(max(0, size + more))
    try:
        header = read_header(written(tmp_path, raw))
    except BadWeights:
        return
    assert {name: list(tensor.shape) for name, tensor in header.tensors.items()} == library(raw)


@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_a_scan_sees_every_value(dtype: str, tmp_path: Path, specimens: Specimens) -> None:
    good, bad = specimens.floats(3, 5, fill=-2.0, dtype=dtype), specimens.floats(2, fill=math.nan, dtype=dtype)
    path = written(tmp_path, specimens.safetensors({"good": good, "bad": bad, "none": specimens.floats(0, 4)}))
    stats = scan(path, read_header(path))
    assert (stats["good"].nonfinite, stats["good"].largest) == (0, 2.0)
    assert stats["good"].norm == pytest.approx(math.sqrt(15 * 4))
    assert (stats["bad"].nonfinite, stats["bad"].largest, stats["bad"].norm) == (2, 0.0, 0.0)
    assert stats["none"].norm == 0.0


def test_bfloat16_is_read_as_it_was_written(tmp_path: Path, specimens: Specimens) -> None:
    """0x4049 is 3.140625, the nearest bfloat16 to pi from below."""
    raw = ("BF16", (1,), (0x4049).to_bytes(2, "little"))
    path = written(tmp_path, specimens.safetensors({"pi": raw}))
    assert scan(path, read_header(path))["pi"].largest == 3.140625


def test_a_bad_value_in_the_last_piece_of_a_long_tensor_is_found(tmp_path: Path, specimens: Specimens) -> None:
    long = np.zeros((1 << 20) + 3, "<f4")
    long[-1] = np.inf
    path = written(tmp_path, specimens.safetensors({"a": ("F32", long.shape, long.tobytes())}))
    assert scan(path, read_header(path))["a"].nonfinite == 1


@pytest.mark.parametrize(("rank", "inputs", "outputs"), [(1, 1, 1), (4, 33, 7), (300, 5000, 40)])
def test_the_norm_of_the_product_is_exact(
    rank: int, inputs: int, outputs: int, tmp_path: Path, specimens: Specimens
) -> None:
    a, b = specimens.floats(rank, inputs, seed=1), specimens.floats(outputs, rank, seed=2)
    path = written(tmp_path, specimens.safetensors({"a": a, "b": b}))
    header = read_header(path)
    wide_a = np.frombuffer(a[2], "<f4").reshape(a[1]).astype(float)
    wide_b = np.frombuffer(b[2], "<f4").reshape(b[1]).astype(float)
    expected = float(np.linalg.norm(wide_b @ wide_a))
    assert product_norm(path, header.tensors["a"], header.tensors["b"]) == pytest.approx(expected)


def test_the_norm_does_not_overflow(tmp_path: Path, specimens: Specimens) -> None:
    path = written(
        tmp_path,
        specimens.safetensors({"a": specimens.floats(1, 1, fill=3e38), "b": specimens.floats(1, 1, fill=3e38)}),
    )
    header = read_header(path)
    assert product_norm(path, header.tensors["a"], header.tensors["b"]) == pytest.approx(9e76)


def test_only_small_integer_tensors_are_read_as_numbers(tmp_path: Path, specimens: Specimens) -> None:
    path = written(tmp_path, specimens.safetensors({"shape": specimens.integers(3, 5), "w": specimens.floats(2)}))
    header = read_header(path)
    assert read_integers(path, header.tensors["shape"]) == (3, 5)
    with pytest.raises(BadWeights, match="no small integer"):
        read_integers(path, header.tensors["w"])


def test_a_file_that_shrinks_while_it_is_read_is_refused(tmp_path: Path, specimens: Specimens) -> None:
    path = written(tmp_path, specimens.safetensors({"a": specimens.floats(8)}))
    header = read_header(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(BadWeights, match="shorter"):
        scan(path, header)

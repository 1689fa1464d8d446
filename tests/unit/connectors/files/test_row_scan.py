"""The row scanner against a slow twin that reads one byte at a time."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from streamproc.kernels.row_scan import STRAY_QUOTE, gather, scan_rows

QUOTE, SEPARATOR = ord('"'), ord(",")


def scanned(
    data: bytes, quoted_max: int, *, final: bool
) -> tuple[list[tuple[bytes, int]], int]:
    array = np.frombuffer(data, np.uint8)
    room = data.count(b"\n") + data.count(b"\r") + 1
    starts, stops = np.empty(room, np.int64), np.empty(room, np.int64)
    fields = np.empty(room, np.int32)
    rows, used = scan_rows(
        array, SEPARATOR, QUOTE, quoted_max, int(final), starts, stops, fields
    )
    spans = zip(
        starts[:rows].tolist(),
        stops[:rows].tolist(),
        fields[:rows].tolist(),
        strict=True,
    )
    return [(data[start:stop], count) for start, stop, count in spans], used


def naive_fields(text: str, quoted_max: int) -> tuple[int, int]:
    """Return (length of the row's content, fields) of a text that is whole."""
    at, fields = 0, 1
    while True:
        if text[at : at + 1] == '"':
            at += 1
            while text[at : at + 1] != '"' or text[at : at + 2] == '""':
                at += 2 if text[at : at + 2] == '""' else 1
                if at >= min(len(text), quoted_max):
                    return len(text.replace("\r", "\n").partition("\n")[0]), STRAY_QUOTE
            if at >= quoted_max:
                return len(text.replace("\r", "\n").partition("\n")[0]), STRAY_QUOTE
            at += 1
        while at < len(text) and text[at] not in ",\r\n":
            at += 1
        if text[at : at + 1] != ",":
            return at, fields
        at += 1
        fields += 1


def naive_rows(data: bytes, quoted_max: int) -> list[tuple[bytes, int]]:
    rows = []
    text = data.decode("latin-1")
    while text:
        size, fields = naive_fields(text, quoted_max)
        if size:
            rows.append((text[:size].encode("latin-1"), fields))
        text = text[size:]
        text = text[2:] if text.startswith("\r\n") else text[1:]
    return rows


PIECES = ("a", ",", '"', '""', ',"', '",', '"aa', "aaaaaa", "\n", "\r", "\r\n")
TEXT = st.lists(st.sampled_from(PIECES), max_size=30).map(
    lambda all_: "".join(all_).encode()
)


@settings(max_examples=400)
@given(TEXT, st.integers(2, 30))
def test_rows_and_fields_are_those_of_the_slow_twin(
    data: bytes, quoted_max: int
) -> None:
    rows, used = scanned(data, quoted_max, final=True)
    assert rows == naive_rows(data, quoted_max)
    assert used == len(data)


@given(TEXT, st.integers(2, 30), st.lists(st.integers(1, 20), min_size=1))
def test_rows_do_not_depend_on_where_the_text_is_cut(
    data: bytes, quoted_max: int, cuts: list[int]
) -> None:
    rows: list[tuple[bytes, int]] = []
    kept, at = b"", 0
    for size in [*cuts, len(data)]:
        kept += data[at : at + size]
        at += size
        found, used = scanned(kept, quoted_max, final=at >= len(data))
        rows += found
        kept = kept[used:]
        if at >= len(data):
            break
    assert rows == naive_rows(data, quoted_max)
    assert not kept


@given(st.binary(max_size=50), st.data())
def test_gather_copies_spans_one_behind_the_other(
    data: bytes, draw: st.DataObject
) -> None:
    edge = st.integers(0, len(data))
    pairs = draw.draw(st.lists(st.tuples(edge, edge).map(sorted), max_size=8))
    starts = np.array([pair[0] for pair in pairs], np.int64)
    stops = np.array([pair[1] for pair in pairs], np.int64)
    offsets = np.empty(len(pairs) + 1, np.int32)
    out = np.empty(int((stops - starts).sum()), np.uint8)
    gather(np.frombuffer(data, np.uint8), starts, stops, offsets, out)
    assert [
        out[offsets[at] : offsets[at + 1]].tobytes() for at in range(len(pairs))
    ] == [data[start:stop] for start, stop in pairs]

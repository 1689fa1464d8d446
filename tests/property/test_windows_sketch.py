"""The quantile sketch: within 1 % at every rank, and free of order and grouping."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from streamproc.core import sketch
from streamproc.kernels import sketch as kernels

numbers = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-50, 50),
    st.sampled_from([0.0, -0.0, 5e-324, -2.3e-308, 1.7976931348623157e308, 1.0, 2.0]),
)
columns = st.lists(numbers, min_size=1, max_size=120)


@given(columns, st.floats(0, 1))
def test_a_quantile_is_within_one_percent_of_the_value_of_its_rank(
    values: list[float], q: float
) -> None:
    exact = sorted(values)[int(q * (len(values) - 1))]
    found = sketch.quantile(sketch.encode(np.array(values)), q)

    if len(values) <= sketch.EXACT_MAX:
        assert found == exact
    elif abs(exact) < 2.3e-308:
        assert found == 0.0 or abs(found - exact) <= 0.01 * abs(exact)
    else:
        assert abs(found - exact) <= 0.01 * abs(exact)


@given(st.lists(columns, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_merging_is_free_of_order_and_grouping(
    groups: list[list[float]], shuffle: object
) -> None:
    whole = sketch.encode(np.array([v for group in groups for v in group]))
    parts = [sketch.encode(np.array(group)) for group in groups]

    assert sketch.merge(parts) == whole
    shuffle.shuffle(parts)  # type: ignore[attr-defined]  # a random.Random
    half = len(parts) // 2
    left = sketch.merge(parts[:half]) if half else None
    right = sketch.merge(parts[half:])
    assert sketch.merge([right, left] if left else [right]) == whole


@given(numbers, numbers)
def test_codes_ascend_with_the_values(a: float, b: float) -> None:
    low, high = sorted((a, b))
    codes = np.empty(2, np.int32)
    kernels.codes_of(np.array([low, high]), codes)

    assert codes[0] <= codes[1]


def test_every_edge_of_a_binade_stays_within_one_percent() -> None:
    values = np.nextafter(np.geomspace(1.0, 2.0, 100_001), 0.0)[1:]
    codes = np.empty(len(values), np.int32)
    kernels.codes_of(values, codes)
    middle = np.array([kernels.value_of(int(code)) for code in codes[::37]])

    assert np.all(np.abs(middle - values[::37]) <= 0.01 * values[::37])
    assert len(np.unique(codes)) == kernels.BINS


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\1\0\0\0\0\0\0\0",
        b"\2\0\0\0\1\0\0\0" + bytes(8),
        b"\1\0\0\0\2\0\0\0" + bytes(8),
    ],
)
def test_bytes_that_are_no_sketch_are_refused(data: bytes) -> None:
    with pytest.raises(ValueError, match="sketch"):
        sketch.decode(data)

"""One type for two: it holds every value of both, or there is none."""

from __future__ import annotations

import itertools

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bgdeploy.snapshots.schema import simple, widen

INTEGERS = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.uint8(), pa.uint16(), pa.uint32(), pa.uint64()]
OTHERS = [
    pa.float16(), pa.float32(), pa.float64(), pa.bool_(), pa.string(), pa.large_string(), pa.binary(), pa.date32(), pa.date64(),
    pa.decimal128(9, 2), pa.decimal128(38, 10), pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("us", "UTC"),
    pa.timestamp("ms", "Europe/Berlin"), pa.time32("s"), pa.time64("ns"), pa.duration("ms"), pa.duration("us"), pa.null(),
]  # fmt: skip
SINGLE = [*INTEGERS, *OTHERS, pa.dictionary(pa.int8(), pa.string())]
KINDS = st.one_of(st.sampled_from(SINGLE), st.sampled_from(SINGLE).map(pa.list_))


@given(KINDS, KINDS)
def test_order_does_not_matter_and_nothing_is_wider_than_itself(one: pa.DataType, two: pa.DataType) -> None:
    both, other_way = widen(one, two), widen(two, one)
    if both is not None and "UTC" not in str(both):
        assert both == other_way
    assert (both is None) == (other_way is None)
    assert widen(one, one) == simple(one)
    assert both is None or widen(both, two) == both


def extremes(kind: pa.DataType) -> list[int]:
    bits = kind.bit_width
    return [-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if pa.types.is_signed_integer(kind) else [0, 2**bits - 1]


@pytest.mark.parametrize(("one", "two"), list(itertools.product(INTEGERS, INTEGERS)), ids=str)
def test_integers_are_widened_only_to_what_holds_the_extremes_of_both(
    one: pa.DataType, two: pa.DataType
) -> None:
    both = widen(one, two)
    if both is None:
        assert pa.uint64() in (one, two)
        return
    for kind in (one, two):
        assert pa.array(extremes(kind), kind).cast(both).to_pylist() == extremes(kind)


@pytest.mark.parametrize(
    ("one", "two", "both"),
    [
        (pa.int32(), pa.float32(), pa.float64()),
        (pa.int64(), pa.float64(), None),
        (pa.float16(), pa.float64(), pa.float64()),
        (pa.decimal128(9, 2), pa.decimal128(10, 4), pa.decimal128(11, 4)),
        (pa.decimal128(38, 0), pa.decimal128(9, 2), None),
        (pa.timestamp("s"), pa.timestamp("us"), pa.timestamp("us")),
        (pa.timestamp("us"), pa.timestamp("us", "UTC"), None),
        (pa.timestamp("us", "Europe/Berlin"), pa.timestamp("ms", "UTC"), pa.timestamp("us", "UTC")),
        (pa.time32("s"), pa.time64("us"), pa.time64("us")),
        (pa.time32("s"), pa.time32("ms"), pa.time32("ms")),
        (pa.duration("s"), pa.duration("ns"), pa.duration("ns")),
        (pa.date32(), pa.timestamp("s"), None),
        (pa.string(), pa.int64(), None),
        (pa.null(), pa.list_(pa.int8()), pa.list_(pa.int8())),
        (pa.list_(pa.null()), pa.list_(pa.int8()), pa.list_(pa.int8())),
        (pa.list_(pa.int8(), 2), pa.large_list(pa.int16()), pa.list_(pa.int16())),
        (pa.list_(pa.string()), pa.string(), None),
    ],
)  # fmt: skip
def test_other_types(one: pa.DataType, two: pa.DataType, both: pa.DataType | None) -> None:
    assert widen(one, two) == both

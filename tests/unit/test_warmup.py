"""`warm_up` leaves nothing to compile: what came later would stop a running service."""

from typing import Any

import pytest

from streamproc import kernels
from streamproc.app.warmup import cache_counts, warm_up
from streamproc.codecs.encode import WireReading, encode_arrow, encode_json
from streamproc.codecs.select import make_decoder
from streamproc.connectors.kafka_fetch import read_a_batch
from streamproc.kernels import arrow_match, scatter
from tests.support.wire import records_of


def test_a_second_warmup_finds_every_kernel_ready() -> None:
    first = warm_up()
    before = cache_counts()

    second = warm_up()

    assert first["compiled"] + first["cached"] > 30, first
    assert cache_counts() == before
    assert (second["compiled"], second["cached"]) == before[::-1]
    place: Any = scatter.place
    assert len(place.signatures) == 4, "columns of 1, 2, 4 and 8 bytes"
    assert kernels.__path__, "counted from the package's own modules"


@pytest.mark.long
def test_records_of_a_raw_batch_are_of_the_types_that_were_compiled() -> None:
    (value,) = encode_json([WireReading("device", "pm10", 0, 1.5)])
    warm_up()
    before = cache_counts()

    decoded = make_decoder("json").decode(read_a_batch(value))

    assert len(decoded.readings) == 1
    assert cache_counts() == before


@pytest.mark.long
def test_arrow_streams_framed_alike_are_matched_by_a_kernel_that_was_compiled() -> None:
    stream = encode_arrow([WireReading("device", "pm10", 0, 1.5)])
    warm_up()
    before = cache_counts()

    decoded = make_decoder("arrow").decode(records_of([stream, stream]))

    assert len(decoded.readings) == 2
    assert cache_counts() == before
    matching: Any = arrow_match.match_stream
    assert matching.signatures

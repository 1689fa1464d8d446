"""Columns made of aiokafka's records."""

from aiokafka.structs import ConsumerRecord
from hypothesis import given
from hypothesis import strategies as st

from streamproc.connectors.kafka_records import columnar, nothing
from streamproc.core.values import NO_TIME, OffsetSpan, TopicPartition

ORIGIN = TopicPartition("telemetry.razlog", 3)

payloads = st.none() | st.binary(max_size=40)
headers = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=5)), max_size=2)


@st.composite
def fetched(draw: st.DrawFn) -> list[ConsumerRecord[bytes, bytes]]:
    records = []
    offset = draw(st.integers(0, 2**40))
    for _ in range(draw(st.integers(0, 20))):
        records.append(
            ConsumerRecord(
                ORIGIN.topic,
                ORIGIN.partition,
                offset,
                draw(st.integers(-1, 2**43)),
                0,
                draw(payloads),
                draw(payloads),
                None,
                -1,
                -1,
                tuple(draw(headers)),
            )
        )
        offset += draw(st.integers(1, 5))
    return records


@given(fetched())
def test_every_column_holds_what_the_records_held(
    given_records: list[ConsumerRecord[bytes, bytes]],
) -> None:
    end = given_records[-1].offset + 3 if given_records else 0
    start = given_records[0].offset if given_records else 0

    records = columnar(ORIGIN, given_records, OffsetSpan(start, end), headers=True)

    assert len(records) == len(given_records)
    assert records.origin == ORIGIN
    assert records.span == OffsetSpan(start, end)
    assert records.headers is not None
    for row, record in enumerate(given_records):
        assert records.offsets[row] == record.offset
        expected = record.timestamp * 1000 if record.timestamp >= 0 else NO_TIME
        assert records.broker_us[row] == expected
        assert records.values[row] == record.value
        assert records.keys[row] == record.key
        assert records.headers[row] == record.headers


def test_nothing_accounts_for_offsets_without_records() -> None:
    records = nothing(ORIGIN, OffsetSpan(4, 9))

    assert len(records) == 0
    assert len(records.span) == 5
    assert records.headers is None

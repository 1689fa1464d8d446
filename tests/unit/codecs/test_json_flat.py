"""Flat JSON: what is read, and every kind of bad input with its reason."""

import pytest

from streamproc.codecs.columns import Sheet
from streamproc.codecs.json_flat import FlatJson
from streamproc.codecs.json_strict import JsonOptions
from streamproc.core.values import Flag, Reason
from tests.support.wire import names_of, records_of, rows_of

GOOD = b'{"device":"d7","property":"pm10","time":"2026-01-31T10:00:00Z","value":12.5}'
AT = 1_769_853_600_000_000


def one(document: bytes, options: JsonOptions | None = None, key: bytes | None = None):  # type: ignore[no-untyped-def]
    """Decode one document among good ones; return its rows without the row number."""
    decoded = FlatJson(options).decode(
        records_of([GOOD, document, GOOD], [b"k", key, b"k"])
    )
    if options is None:
        kept = [reject.row for reject in decoded.rejects]
        assert kept in ([], [1])
    return [row[1:] for row in rows_of(decoded) if row[0] == 1]


def refused(document: bytes | None, options: JsonOptions | None = None) -> Reason:
    decoded = FlatJson(options).decode(records_of([document], [None]))
    assert decoded.readings.num_rows == 0
    assert len(decoded.rejects) == 1
    assert decoded.rejects[0].detail.isprintable()
    return decoded.rejects[0].reason


def with_value(text: bytes) -> bytes:
    return b'{"device":"d7","property":"pm10","time":0,"value":' + text + b"}"


def with_time(text: bytes) -> bytes:
    return b'{"device":"d7","property":"pm10","value":1,"time":' + text + b"}"


def test_one_reading_a_record_is_read_with_all_its_fields() -> None:
    document = (
        b' { "quality" : -3 , "unit":"ug/m3","value":-0.25, "time":"2026-01-31T10:00:00Z"'
        b' ,"property":"pm10","device":"d\xc3\xa97" } '
    )

    assert one(document) == [(0, "dé7", "pm10", "ug/m3", AT, -0.25, -3, 0)]


def test_one_device_with_many_properties_is_read_in_its_order() -> None:
    document = (
        b'{"device":"d7","time":1769853600000,"values":{"pm10":1,"no2":2.5},'
        b'"units":{"no2":"ug/m3"},"quality":2}'
    )

    assert one(document) == [
        (0, "d7", "pm10", None, AT, 1.0, 2, 0),
        (1, "d7", "no2", "ug/m3", AT, 2.5, 2, 0),
    ]


def test_units_may_stand_before_their_values_and_name_more_than_them() -> None:
    document = b'{"units":{"no2":"ug/m3","o3":"ppb"},"values":{"no2":2.5},"time":0,"device":"d"}'

    assert one(document) == [(0, "d", "no2", "ug/m3", 0, 2.5, 1, 0)]


@pytest.mark.parametrize(
    "extra",
    [
        b'"note":"hello"',
        b'"note":"caf\\u00e9 \\"x\\""',
        b'"rssi":-71.5',
        b'"ok":true,"bad":false,"none":null',
        b'"meta":{"a":[1,{"device":"other"}],"a":2}',
        b'"list":[]',
        b'"a":1,"a":2',
    ],
)
def test_other_keys_are_ignored_with_all_that_is_below_them(extra: bytes) -> None:
    assert one(GOOD[:-1] + b"," + extra + b"}") == one(GOOD)
    assert one(b"{" + extra + b"," + GOOD[1:]) == one(GOOD)


def test_escapes_mean_what_json_says() -> None:
    document = GOOD.replace(b'"device"', b'"de\\u0076ice"').replace(b"d7", b"d\\u0037")

    assert one(document) == one(GOOD)


def test_null_counts_as_absent() -> None:
    assert one(GOOD[:-1] + b',"unit":null,"quality":null,"values":null}') == one(GOOD)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"0", 0.0),
        (b"-0", -0.0),
        (b"1e3", 1000.0),
        (b"-1.5E-2", -0.015),
        (b"0.1", 0.1),
        (b"12.300000000000001", 12.300000000000001),
        (b"9007199254740993", 9007199254740992.0),
        (b"123456789012345678901234567890", 1.2345678901234568e29),
        (b"1" + b"0" * 300, 1e300),
        (b"4.9406564584124654e-324", 5e-324),
        (b"1e-999", 0.0),
    ],
)
def test_values_are_the_nearest_double(text: bytes, expected: float) -> None:
    ((*_, value, _, _),) = one(with_value(text))

    assert (value, str(value)) == (expected, str(expected))


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        (b'"2026-01-31T10:00:00Z"', AT),
        (b'"2026-01-31t10:00:00z"', AT),
        (b'"2026-01-31 10:00:00+00:00"', AT),
        (b'"2026-01-31T12:30:00+02:30"', AT),
        (b'"2026-01-31T08:00:00-02:00"', AT),
        (b'"2026-01-31T10:00:00-00:00"', AT),
        (b'"2026-01-31T10:00:00.5Z"', AT + 500_000),
        (b'"2026-01-31T10:00:00.123456789Z"', AT + 123_456),
        (b'"1969-12-31T23:59:59.999999999Z"', -1),
        (b'"2024-02-29T00:00:00Z"', 1_709_164_800_000_000),
        (b"1769853600000", AT),
        (b"1769853600000.0009", AT),
        (b"1769853600000.001", AT + 1),
        (b"1.7698536e12", AT),
        (b"-0.0001", -1),
        (b"7", 7_000),
    ],
)
def test_times_are_rfc_3339_or_milliseconds(text: bytes, expected_us: int) -> None:
    ((_, _, _, _, event_us, _, _, flags),) = one(with_time(text))

    assert (event_us, flags) == (expected_us, 0)


@pytest.mark.parametrize(
    ("unit", "text"),
    [
        ("s", b"1769853600.0000009"),
        ("auto", b"1769853600000"),
        ("ms", b"1769853600000"),
        ("us", b"1769853600000000"),
        ("ns", b"1769853600000000999"),
    ],
)
def test_the_declared_unit_of_epoch_numbers_is_obeyed(unit: str, text: bytes) -> None:
    options = JsonOptions(time_unit=unit)  # type: ignore[arg-type]

    assert one(with_time(text), options)[0][4] == AT


@pytest.mark.parametrize(
    "text",
    [
        b'"2026-01-31T10:00:00"',
        b'"2026-01-31"',
        b'"2026-02-29T10:00:00Z"',
        b'"2026-13-01T10:00:00Z"',
        b'"2026-01-31T24:00:00Z"',
        b'"2026-01-31T10:00:60Z"',
        b'"2026-01-31T10:00:00.Z"',
        b'"2026-01-31T10:00:00.1234567890Z"',
        b'"2026-01-31T10:00:00+24:00"',
        b'"2026-01-31T10:00:00+0200"',
        b'"0000-01-01T00:00:00Z"',
        b'"0001-01-01T00:00:00Z"',
        b'"9999-12-31T00:00:00Z"',
        b'"\xef\xbc\x92026-01-31T10:00:00Z"',
        b'"1769853600000"',
        b'""',
        b"99999999999999999",
        b"1e300",
        b"-1e17",
    ],
)
def test_other_times_are_bad_times(text: bytes) -> None:
    assert refused(with_time(text)) is Reason.BAD_TIME


def test_a_time_without_zone_is_taken_for_utc_only_where_that_is_declared() -> None:
    document = with_time(b'"2026-01-31 10:00:00.25"')
    options = JsonOptions(assume_zone="UTC")

    ((*_, event_us, _, _, flags),) = one(document, options)

    assert (event_us, flags) == (AT + 250_000, Flag.TZ_ASSUMED)
    assert one(GOOD, options) == one(GOOD)


def test_numbers_in_quotes_are_read_only_where_that_is_declared() -> None:
    options = JsonOptions(string_numbers=True)

    for text in (b'"12.5"', b'"1.25e1"'):
        ((*_, value, _, flags),) = one(with_value(text), options)
        assert (value, flags) == (12.5, Flag.STRING_NUMBER)
        assert refused(with_value(text)) is Reason.WRONG_TYPE
    for text in (b'""', b'" 1"', b'"1 "', b'"0x1"', b'"NaN"', b'"1_0"', b'"+1"'):
        assert refused(with_value(text), options) is Reason.WRONG_TYPE


def test_states_are_numbers_by_declaration() -> None:
    options = JsonOptions(states={"pm10": {"free": 0.0, "occupied": 1.0}})

    assert one(with_value(b'"occupied"'), options)[0][5] == 1.0
    assert refused(with_value(b'"gone"'), options) is Reason.BAD_VALUE
    assert refused(with_value(b"true"), options) is Reason.WRONG_TYPE


def test_the_record_key_names_the_device_only_where_that_is_declared() -> None:
    options = JsonOptions(device_from_key=True)
    document = GOOD.replace(b'"device":"d7",', b"")

    assert one(document, options, b"k\xc3\xa9")[0][1] == "ké"
    assert one(GOOD, options, b"other")[0][1] == "d7"
    assert one(GOOD.replace(b'"d7"', b"null"), options, b"k")[0][1] == "k"
    for key in (None, b"", b"\xff", b"a\nb", b"k" * 257):
        assert one(document, options, key) == []
    assert one(document) == []


def test_fields_go_by_the_names_declared() -> None:
    options = JsonOptions(device="id", property="what", time="ts", value="v")

    document = b'{"id":"d7","what":"pm10","ts":0,"v":1,"device":[],"value":{}}'

    assert one(document, options) == [(0, "d7", "pm10", None, 0, 1.0, 1, 0)]


@pytest.mark.parametrize("name", ["", "x" * 31, 'a"b', "a\\b", "a\nb", "value"])
def test_field_names_that_cannot_be_matched_are_refused_at_once(name: str) -> None:
    with pytest.raises(ValueError, match="key"):
        JsonOptions(device=name)


BAD = [
    (None, Reason.EMPTY),
    (b"", Reason.EMPTY),
    (b" ", Reason.MALFORMED),
    (b"{}", Reason.MISSING_FIELD),
    (b"[]", Reason.WRONG_TYPE),
    (b"null", Reason.WRONG_TYPE),
    (b"17", Reason.WRONG_TYPE),
    (b'"text"', Reason.WRONG_TYPE),
    (GOOD[:-1], Reason.MALFORMED),
    (GOOD[:-6], Reason.MALFORMED),
    (GOOD[:1], Reason.MALFORMED),
    (GOOD + b"}", Reason.MALFORMED),
    (GOOD + b"x", Reason.MALFORMED),
    (GOOD + GOOD, Reason.MALFORMED),
    (GOOD[:-1] + b",}", Reason.MALFORMED),
    (b"\xef\xbb\xbf" + GOOD, Reason.MALFORMED),
    (GOOD.decode().encode("utf-16"), Reason.BAD_TEXT),
    (GOOD.replace(b"d7", b"d\xff"), Reason.BAD_TEXT),
    (GOOD.replace(b"d7", b"d\xc0\xaf"), Reason.BAD_TEXT),
    (GOOD.replace(b"d7", b"d\xed\xa0\x80"), Reason.BAD_TEXT),
    (GOOD[:-1] + b',"x":"\xff"}', Reason.BAD_TEXT),
    (GOOD.replace(b"d7", b"d\\ud800"), Reason.BAD_TEXT),
    (GOOD[:-1] + b',"x":["\\udc00"]}', Reason.BAD_TEXT),
    (GOOD.replace(b"d7", b"d\\u0000"), Reason.BAD_TEXT),
    (GOOD.replace(b"d7", b"d\x7f"), Reason.BAD_TEXT),
    (GOOD.replace(b"d7", b"d\n7"), Reason.MALFORMED),
    (GOOD[:-1] + b',"x":"\x01"}', Reason.MALFORMED),
    (GOOD.replace(b"d7", b""), Reason.BAD_TEXT),
    (GOOD.replace(b"d7", b"d" * 257), Reason.BAD_TEXT),
    (GOOD.replace(b"pm10", b""), Reason.BAD_TEXT),
    (GOOD.replace(b'"d7"', b"7"), Reason.WRONG_TYPE),
    (GOOD.replace(b'"pm10"', b"{}"), Reason.WRONG_TYPE),
    (GOOD.replace(b'"device"', b'"Device"'), Reason.MISSING_FIELD),
    (GOOD.replace(b'"property"', b'"p"'), Reason.MISSING_FIELD),
    (GOOD.replace(b'"time"', b'"t"'), Reason.MISSING_FIELD),
    (GOOD.replace(b'"value"', b'"v"'), Reason.MISSING_FIELD),
    (with_time(b"true"), Reason.WRONG_TYPE),
    (with_time(b"null"), Reason.MISSING_FIELD),
    (with_time(b"{}"), Reason.WRONG_TYPE),
    (with_value(b"null"), Reason.MISSING_FIELD),
    (with_value(b"true"), Reason.WRONG_TYPE),
    (with_value(b'"1.5"'), Reason.WRONG_TYPE),
    (with_value(b"[1]"), Reason.WRONG_TYPE),
    (with_value(b"{}"), Reason.WRONG_TYPE),
    (with_value(b"NaN"), Reason.MALFORMED),
    (with_value(b"Infinity"), Reason.MALFORMED),
    (with_value(b"-Infinity"), Reason.MALFORMED),
    (with_value(b"1e999"), Reason.BAD_VALUE),
    (with_value(b"-1e999"), Reason.BAD_VALUE),
    (with_value(b"9" * 400), Reason.BAD_VALUE),
    (with_value(b"9" * 5000), Reason.BAD_VALUE),
    (with_value(b"01"), Reason.MALFORMED),
    (with_value(b"+1"), Reason.MALFORMED),
    (with_value(b".5"), Reason.MALFORMED),
    (with_value(b"1."), Reason.MALFORMED),
    (with_value(b"-"), Reason.MALFORMED),
    (with_value(b"0x10"), Reason.MALFORMED),
    (with_value(b"1 2"), Reason.MALFORMED),
    (with_value(b"1,2"), Reason.MALFORMED),
    (with_value(b"1") + b"\0", Reason.MALFORMED),
    (GOOD[:-1] + b',"value":2}', Reason.MALFORMED),
    (GOOD[:-1] + b',"value":12.5}', Reason.MALFORMED),
    (GOOD[:-1] + b',"val\\u0075e":12.5}', Reason.MALFORMED),
    (GOOD[:-1] + b',"quality":128}', Reason.BAD_VALUE),
    (GOOD[:-1] + b',"quality":-129}', Reason.BAD_VALUE),
    (GOOD[:-1] + b',"quality":1.5}', Reason.BAD_VALUE),
    (GOOD[:-1] + b',"quality":1e-999999999999999999999}', Reason.BAD_VALUE),
    (GOOD[:-1] + b',"quality":"good"}', Reason.WRONG_TYPE),
    (GOOD[:-1] + b',"unit":1}', Reason.WRONG_TYPE),
    (GOOD[:-1] + b',"values":{"no2":1}}', Reason.MALFORMED),
    (GOOD[:-1] + b',"units":{}}', Reason.MALFORMED),
    (b'{"device":"d","time":0,"values":{}}', Reason.MISSING_FIELD),
    (b'{"device":"d","time":0,"values":[1]}', Reason.WRONG_TYPE),
    (b'{"device":"d","time":0,"values":{"a":1,"a":1}}', Reason.MALFORMED),
    (b'{"device":"d","time":0,"values":{"a":1,"b":null}}', Reason.MISSING_FIELD),
    (b'{"device":"d","time":0,"values":{"a":1,"b":"x"}}', Reason.WRONG_TYPE),
    (b'{"device":"d","time":0,"values":{"a":1,"":2}}', Reason.BAD_TEXT),
    (b'{"device":"d","time":0,"values":{"a":1},"units":1}', Reason.WRONG_TYPE),
    (b'{"device":"d","time":0,"values":{"a":1},"units":{"a":1}}', Reason.WRONG_TYPE),
    (
        b'{"device":"d","time":0,"values":{"a":1},"units":{"a":"x","a":"x"}}',
        Reason.MALFORMED,
    ),
    (b"[" * 60_000, Reason.MALFORMED),
    (b'{"a":' * 9_000 + b"1" + b"}" * 9_000, Reason.MALFORMED),
    (GOOD[:-1] + b',"x":' + b"[" * 33 + b"]" * 33 + b"}", Reason.MALFORMED),
    (b"[" * 100_000 + b"]" * 100_000, Reason.TOO_LARGE),
    (GOOD + b" " * 65_536, Reason.TOO_LARGE),
]


@pytest.mark.parametrize(("document", "reason"), BAD, ids=range(len(BAD)))
@pytest.mark.fault(
    "F35",
    how="broken JSON, deep nesting, NaN, bad text: one by one",
    seen="one reject with its reason",
)
def test_bad_input_is_one_reject_with_its_reason(
    document: bytes | None, reason: Reason
) -> None:
    assert refused(document) is reason


def test_a_batch_goes_on_around_its_bad_records() -> None:
    documents = [document for document, _ in BAD]
    batch = [one for document in documents for one in (GOOD, document)]

    decoded = FlatJson().decode(records_of(batch))

    assert [row[0] for row in rows_of(decoded)] == list(range(0, len(batch), 2))
    found = [(reject.row, reject.reason) for reject in decoded.rejects]
    assert found == [(2 * k + 1, reason) for k, (_, reason) in enumerate(BAD)]


def test_a_flood_of_names_begins_a_new_vocabulary() -> None:
    decoder = FlatJson()
    decoder._sheet = Sheet(names_max=3)
    batches = [
        [GOOD.replace(b"d7", b"d%d" % (4 * k + j)) for j in range(4)] for k in (0, 1)
    ]

    first, second = (decoder.decode(records_of(batch)) for batch in batches)

    assert first.vocabulary is not second.vocabulary
    assert [row[2] for row in rows_of(first)] == ["d0", "d1", "d2", "d3"]
    assert [row[2] for row in rows_of(second)] == ["d4", "d5", "d6", "d7"]
    assert names_of(second, "device") == ["d4", "d5", "d6", "d7"]


def test_a_batch_may_hold_more_readings_and_names_than_was_expected() -> None:
    documents = [
        b'{"device":"device %d","time":%d,"values":{%s}}'
        % (k, k, b",".join(b'"property %d":%d' % (k * 7 + j, j) for j in range(40)))
        for k in range(300)
    ]
    decoder = FlatJson()

    for _ in range(2):  # the second time tables start at the size that was needed
        rows = rows_of(decoder.decode(records_of(documents)))

        assert rows == [
            (k, j, f"device {k}", f"property {k * 7 + j}", None, k * 1000, j, 1, 0)
            for k in range(300)
            for j in range(40)
        ]


def test_a_slice_of_records_decodes_like_the_whole() -> None:
    documents = [with_value(b"%d" % k) for k in range(10)] + [None, b"x"]

    decoded = FlatJson().decode(records_of(documents).between(4, 12))

    assert [row[6] for row in rows_of(decoded)] == [4, 5, 6, 7, 8, 9]
    assert [(r.row, r.reason.value) for r in decoded.rejects] == [
        (6, "empty"),
        (7, "malformed"),
    ]


def test_an_empty_batch_is_an_empty_answer() -> None:
    decoded = FlatJson().decode(records_of([]))

    assert (rows_of(decoded), decoded.rejects) == ([], ())

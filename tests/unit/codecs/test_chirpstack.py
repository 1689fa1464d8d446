"""ChirpStack's events: which are uplinks, and what of an uplink becomes a reading."""

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from streamproc.codecs.chirpstack import ChirpStack
from streamproc.codecs.chirpstack_strict import (
    DEPTH_MAX,
    ChirpStackOptions,
    StrictUplink,
    kind_of,
)
from streamproc.codecs.columns import Sheet
from streamproc.codecs.encode import encode_uplink
from streamproc.core.values import Decoded
from streamproc.kernels import uplink_content, uplink_scan
from tests.property.test_codecs_chirpstack import Watched
from tests.support.wire import UPLINKS, Row, records_of, rows_of

EUI = "0101010101010101"
TIME_US = 1_658_136_855_775_023
KEY = b"application.17c82e96.device.0101010101010101.event."


def uplink(content: object = None, **changes: object) -> bytes:
    """Return an uplink with `changes`; None takes a field out."""
    document = json.loads(encode_uplink(EUI, TIME_US, {"pm10": 1.5}))
    document["time"] = "2022-07-18T09:34:15.775023242+00:00"
    if content is not None:
        document["object"] = content
    document |= changes
    kept = {name: value for name, value in document.items() if value is not None}
    return json.dumps(kept, ensure_ascii=False, separators=(",", ":")).encode()


def decode(
    values: Sequence[bytes | None],
    options: ChirpStackOptions = UPLINKS,
    keys: Sequence[bytes | None] | None = None,
    headers: Sequence[Sequence[tuple[str, bytes]]] | None = None,
) -> Decoded:
    records = replace(records_of(values, keys), headers=headers)
    return ChirpStack(options).decode(records)


def rows(content: object, options: ChirpStackOptions = UPLINKS) -> list[Row]:
    decoded = decode([uplink(content)], options)
    assert (decoded.rejects, decoded.ignored) == ((), ())
    return rows_of(decoded)


def fate(value: bytes | None, options: ChirpStackOptions = UPLINKS) -> tuple[str, str]:
    """Return what became of a record that holds no reading."""
    decoded = decode([value], options)
    assert decoded.readings.num_rows == 0
    if decoded.ignored:
        return "ignored", decoded.ignored[0].kind
    (reject,) = decoded.rejects
    return reject.reason.value, reject.detail


def test_mapped_leaves_become_readings_and_others_do_not() -> None:
    content = {
        "pm10": 12,
        "battery": 3.3,
        "air": {"no2": 0.0, "text": "dry"},
        "list": [7, {"t": -0.5}],
        "state": "occupied",
    }

    assert rows(content) == [
        (0, 0, EUI, "pm10", None, TIME_US, 12.0, 1, 0),
        (0, 1, EUI, "no2", "ug/m3", TIME_US, 0.0, 1, 0),
        (0, 2, EUI, "temperature", None, TIME_US, -0.5, 1, 0),
        (0, 3, EUI, "parking_state", None, TIME_US, 1.0, 1, 0),
    ]


def test_a_device_may_go_by_its_name() -> None:
    (row,) = rows({"pm10": 1}, replace(UPLINKS, device="deviceName"))

    assert row[2] == f"Device {EUI}"


@pytest.mark.parametrize(
    ("time", "time_us"),
    [
        ("2022-07-18T09:34:15.775023999+00:00", TIME_US),
        ("2022-07-18T09:34:15.775023Z", TIME_US),
        ("2022-07-18T11:34:15.775023999+02:00", TIME_US),
        ("2022-07-18T09:34:15+00:00", TIME_US - 775_023),
        ("1969-12-31T23:59:59.9999999Z", -1),
    ],
)
def test_a_time_is_cut_to_microseconds(time: str, time_us: int) -> None:
    decoded = decode([uplink(time=time)])

    assert [row[5] for row in rows_of(decoded)] == [time_us]


def test_booleans_are_numbers_where_the_operator_says_so() -> None:
    options = replace(UPLINKS, booleans=True)

    assert [row[6] for row in rows({"open": True}, options)] == [1.0]
    assert [row[6] for row in rows({"open": False}, options)] == [0.0]
    assert fate(uplink({"open": True})) == (
        "wrong_type",
        "object.open is a boolean",
    )


@pytest.mark.parametrize(
    ("content", "booleans", "path"),
    [
        ({"pm10": 1, "x": 2}, False, "x"),
        ({"pm10": 1, "a": [{"b": 1.5}]}, False, "a.0.b"),
        ({"x": True}, True, "x"),
    ],
)
def test_an_unmapped_number_quarantines_its_record_where_the_operator_says_so(
    content: object, booleans: bool, path: str
) -> None:
    options = replace(UPLINKS, unmapped="quarantine", booleans=booleans)

    assert fate(uplink(content), options) == (
        "unknown_property",
        f"object.{path} is not one of the mapped properties",
    )


def test_an_unmapped_word_or_boolean_is_not_a_number() -> None:
    options = replace(UPLINKS, unmapped="quarantine")

    (row,) = rows({"pm10": 1, "x": "word", "y": True, "z": None}, options)

    assert row[3] == "pm10"


@pytest.mark.parametrize(
    ("content", "reason", "detail"),
    [
        ({"pm10": "1.5"}, "wrong_type", "object.pm10 is a string"),
        ({"state": "lost"}, "bad_value", "object.state 'lost' is no state of"),
        ({"air.no2": 1, "air": {"no2": 2}}, "malformed", "'no2' comes twice"),
        ([1], "wrong_type", "object is not an object"),
        (7, "wrong_type", "object is not an object"),
    ],
)
def test_what_is_mapped_and_cannot_be_read_is_refused(
    content: object, reason: str, detail: str
) -> None:
    found = fate(uplink(content))

    assert found[0] == reason
    assert detail in found[1]


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        ({"time": None}, "missing_field", "time is missing"),
        ({"time": 5}, "wrong_type", "time is no text"),
        ({"time": "2022-07-18T09:34:15"}, "bad_time", "has no zone"),
        ({"deviceInfo": None}, "missing_field", "deviceInfo is missing"),
        ({"deviceInfo": []}, "wrong_type", "deviceInfo is not an object"),
        ({"deviceInfo": {}}, "missing_field", "deviceInfo.devEui is missing"),
        ({"deviceInfo": {"devEui": 7}}, "wrong_type", "is not a string"),
        ({"deviceInfo": {"devEui": ""}}, "bad_text", "has 0 bytes"),
    ],
)
def test_what_every_reading_needs_must_be_there(
    change: dict[str, Any], reason: str, detail: str
) -> None:
    found = fate(uplink(**change))

    assert found[0] == reason
    assert detail in found[1]


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (None, "empty"),
        (b"", "empty"),
        (b"{", "malformed"),
        (b"[]", "wrong_type"),
        (b"\xff", "bad_text"),
        (b"x" * 65_537, "too_large"),
        (uplink().replace(b'"dr":1', b'"dr":NaN'), "malformed"),
        (uplink().replace(b'"pm10":1.5', b'"pm10":1e999'), "bad_value"),
        (uplink().replace(b'"pm10":1.5', b'"pm10":1,"pm10":2'), "malformed"),
        (uplink().replace(b'"dr":1', b'"time":"x"'), "malformed"),
        (uplink().replace(b'"dr":1', b'"x":' + b"[" * 501 + b"]" * 501), "malformed"),
        (uplink().replace(b'"dr":1', b'"x":' + b"[" * 9999), "malformed"),
    ],
)
def test_what_is_no_event_is_refused(payload: bytes | None, reason: str) -> None:
    assert fate(payload)[0] == reason


def test_what_is_not_read_is_not_looked_at() -> None:
    payload = uplink().replace(
        b'"dr":1', b'"dr":1e999,"dr":2,"x":' + b"[" * (DEPTH_MAX - 1) + b"]" * (DEPTH_MAX - 1)
    )  # fmt: skip

    assert [row[6] for row in rows_of(decode([payload]))] == [1.5]


def test_a_good_uplink_that_is_too_large_is_refused() -> None:
    fits = uplink().ljust(65_536)

    assert [row[6] for row in rows_of(decode([fits]))] == [1.5]
    assert fate(fits + b" ")[0] == "too_large"


@pytest.mark.parametrize("device", ["devEui", "deviceName"])
def test_keys_like_those_that_are_read_are_not_read(device: Any) -> None:
    payload = uplink().replace(b'"dr":1', b'"deviceInfx":1,"timf":2,"objecu":3')
    payload = payload.replace(b'"tags"', b'"deviceNamf":{},"devEuj":[],"tags"')

    (row,) = rows_of(decode([payload], replace(UPLINKS, device=device)))

    assert row[2] == (EUI if device == "devEui" else f"Device {EUI}")


@pytest.mark.parametrize("key", ["time", "deviceInfo", "devEui", "deviceName"])
@pytest.mark.parametrize("at", [0, -1])
def test_a_key_that_is_nearly_right_does_not_stand_for_the_right_one(
    key: str, at: int
) -> None:
    letters = list(key)
    letters[at] = "x"
    payload = uplink().replace(f'"{key}"'.encode(), f'"{"".join(letters)}"'.encode())
    device: Any = key if key in {"devEui", "deviceName"} else "devEui"

    assert fate(payload, replace(UPLINKS, device=device))[0] == "missing_field"


@pytest.mark.parametrize("key", ["xbject", "objecx"])
def test_a_key_that_is_nearly_object_holds_no_reading(key: str) -> None:
    payload = uplink().replace(b'"object"', f'"{key}"'.encode())

    assert decode([payload]).readings.num_rows == 0


def test_minus_zero_and_large_numbers_keep_their_value() -> None:
    payload = uplink({"pm10": 1, "air": {"no2": 2}})
    payload = payload.replace(b'"pm10":1', b'"pm10":-0')
    payload = payload.replace(b'"no2":2', b'"no2":' + b"9" * 30)

    assert [repr(row[6]) for row in rows_of(decode([payload]))] == ["-0.0", "1e+30"]


def test_an_escape_is_read_as_what_it_stands_for() -> None:
    payload = uplink().replace(b'"pm10"', b'"\\u0070m10"')

    assert [row[3] for row in rows_of(decode([payload]))] == ["pm10"]


# --- what is no reading -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("headers", "key", "kind"),
    [
        ((), None, None),
        ((), b"d7", None),
        ((), KEY + b"up", "up"),
        ((), KEY + b"join", "join"),
        ((), KEY + b"new", "other"),
        ((), KEY, "other"),
        ((("event", b"up"),), KEY + b"join", "up"),
        ((("x", b"up"), ("event", b"txack")), KEY + b"up", "txack"),
        ((("event", b"\xff"),), KEY + b"up", "other"),
        ((("event", b""),), KEY + b"up", "up"),
    ],
)
def test_the_kind_is_in_the_header_else_in_the_key(
    headers: tuple[tuple[str, bytes], ...], key: bytes | None, kind: str | None
) -> None:
    assert kind_of(headers, key) == kind


def test_other_events_are_ignored_whatever_they_hold() -> None:
    values = [uplink(), b"{nonsense", uplink(), uplink()]
    keys = [KEY + b"up", KEY + b"status", KEY + b"join", None]
    headers = [(), (), (), (("event", b"log"),)]

    decoded = decode(values, keys=keys, headers=headers)

    assert [row[0] for row in rows_of(decoded)] == [0]
    assert decoded.rejects == ()
    assert [(one.row, one.kind) for one in decoded.ignored] == [
        (1, "status"),
        (2, "join"),
        (3, "log"),
    ]


def test_the_kernel_takes_keys_as_they_are_meant() -> None:
    keys = [
        *(None, b"", b"d7", b"event.up", b".event.up", b".event.", KEY, KEY + b"up"),
        *(KEY + b"ux", KEY + b"u", KEY + b"join", KEY + b"up.event.join", KEY + b"up "),
        *(b".event.join.event.up", b"d.event", b"x.event.d", KEY[:-1] + b"\0up"),
    ]

    decoded = decode([uplink()] * len(keys), keys=keys)

    assert decoded.rejects == ()
    kinds = [kind_of((), key) for key in keys]
    up = [row for row, kind in enumerate(kinds) if kind in {None, "up"}]
    assert [row[0] for row in rows_of(decoded)] == up
    assert [(one.row, one.kind) for one in decoded.ignored] == [
        (row, kind) for row, kind in enumerate(kinds) if row not in up
    ]


def test_without_header_and_key_an_event_with_a_payload_is_an_uplink() -> None:
    nothing = {"object": None, "data": None, "fPort": None}

    assert fate(uplink(**nothing)) == ("ignored", "other")
    assert fate(uplink(**(nothing | {"fPort": 1}))) == ("ignored", "up")
    assert fate(uplink(**(nothing | {"data": ""}))) == ("ignored", "up")
    assert fate(uplink(**(nothing | {"data": "qg=="})))[0] == "missing_field"


def test_an_uplink_in_which_nothing_is_mapped_is_ignored() -> None:
    assert fate(uplink({})) == ("ignored", "up")
    assert fate(uplink({"x": 1, "pm10": None})) == ("ignored", "up")


def test_an_uplink_that_no_codec_has_decoded_is_refused() -> None:
    assert fate(uplink(object=None)) == (
        "missing_field",
        "object is missing: does the device's profile have a codec?",
    )
    assert fate(uplink(object=None, data="")) == ("ignored", "up")


# --- what the kernels read alone -----------------------------------------------------------


@pytest.fixture
def _without_strict_path(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer(_: StrictUplink, payload: bytes, __: str | None) -> None:
        pytest.fail(f"strict: {payload!r}")

    monkeypatch.setattr(StrictUplink, "answer", answer)


@pytest.mark.usefixtures("_without_strict_path")
@pytest.mark.parametrize(
    ("content", "values"),
    [
        ({"pm10": -0.25, "battery": 3, "air": {"no2": 1}}, [-0.25, 1.0]),
        ({"pm10": 0.30000000000000004, "x": 1e-7, "y": "\n"}, [0.30000000000000004]),
        ({"state": "occupied", "open": None, "é": [[], {}, [{}]]}, [1.0]),
        ({"air.no2": 3, "list.1": {"t": 4}}, [3.0, 4.0]),
        ({"list": {"1": {"t": 5}}, "air": {"no2": 6, "no": 7}}, [5.0, 6.0]),
        ({"list": [{"t": 1}, {"t": 2}, {"t": 3}]}, [2.0]),
        ({"list": [{"t": k} for k in range(300)]}, [1.0]),
        ({"x": {"air": 1, "pm10": 2}, "air": {"air": {}, "no2": 3}, "pm10": 4}, [3, 4]),
        ({"pm10": {"pm10": 1}, "air": 2, "no2": 3, "": 4, "open": None}, []),
        ({f"key {k}": k for k in range(150)} | {"pm10": 1}, [1.0]),
    ],
)
def test_ordinary_uplinks_need_no_strict_path(
    content: dict[str, Any], values: list[float]
) -> None:
    decoded = decode([uplink(content)])

    assert [row[6] for row in rows_of(decoded)] == values
    assert [one.kind for one in decoded.ignored] == ([] if values else ["up"])


@pytest.mark.usefixtures("_without_strict_path")
def test_what_surrounds_object_needs_no_strict_path() -> None:
    payload = uplink()
    values = [
        payload.replace(b'"dr":1', b'"dr":1e999,"dr":[[],[{"x":"\\u00e9\\ud800"}]]'),
        json.dumps(json.loads(payload), indent=3, separators=(" ,\r", "\t: ")).encode(),
        payload.replace(b"+00:00", b"Z"),
        payload.replace("Hauptstraße".encode(), b'\\"a\\"'),
    ]

    assert [row[6] for row in rows_of(decode(values))] == [1.5] * 4


@pytest.mark.usefixtures("_without_strict_path")
def test_an_uplink_without_object_needs_no_strict_path() -> None:
    assert fate(uplink(object=None))[0] == "missing_field"
    assert fate(uplink(object=None, data="")) == ("ignored", "up")
    assert fate(uplink(object=None, data=None)) == ("ignored", "up")


def test_a_state_longer_than_a_block_is_known_all_the_same() -> None:
    names = {"x" * 32: 1.0, "x" * 33: 2.0, "x" * 31: 3.0, "": 4.0}
    options = replace(UPLINKS, states={"parking_state": names})

    found = [rows({"state": name}, options)[0][6] for name in names]

    assert found == [1.0, 2.0, 3.0, 4.0]


def test_more_properties_than_a_table_begins_with_are_all_told_apart() -> None:
    names = {f"p{k}": f"property-{k}" for k in range(700)}
    options = replace(UPLINKS, properties=names, units={"property-699": "m"})
    parts = [dict.fromkeys(list(names)[k : k + 150], 1) for k in range(0, 700, 150)]

    decoded = decode([uplink(part) for part in parts], options)

    assert decoded.rejects == ()
    assert [row[3] for row in rows_of(decoded)] == list(names.values())
    assert [row[4] for row in rows_of(decoded)] == [None] * 699 + ["m"]


def test_an_uplink_of_many_keys_is_read_and_its_keys_are_compared() -> None:
    content = {f"p{k}": k for k in range(1_000)}
    payload = uplink(content | {"pm10": 1})

    assert [row[6] for row in rows_of(decode([payload]))] == [1.0]
    assert fate(payload.replace(b'"p999"', b'"p0"'))[0] == "malformed"


@pytest.mark.parametrize("where", ["{}", '{"a":{}}', '{"a":[1,{}]}', '{"b":1,"a":{}}'])
@pytest.mark.parametrize("twice", [(0, 1), (0, 2), (1, 2), (0, 9), (4, 8)])
def test_a_key_that_comes_twice_in_an_object_is_found(
    where: str, twice: tuple[int, int]
) -> None:
    names = [f"k{k}" for k in range(10)]
    names[twice[1]] = names[twice[0]]
    members = ",".join(f'"{name}":{{"k1":1}}' for name in names)
    content = where.replace("{}", f"{{{members}}}").encode()
    payload = uplink({}).replace(b'"object":{}', b'"object":' + content)

    reason, detail = fate(payload)

    assert (reason, f"'k{twice[0]}' comes twice" in detail) == ("malformed", True)


@pytest.mark.parametrize("levels", [10, 23, 24, 25, 60, DEPTH_MAX - 3])
def test_what_is_nested_deep_in_object_is_found(levels: int) -> None:
    path = ".".join(["a"] * levels)
    content = b'{"a":' * levels + b"7" + b"}" * levels
    payload = uplink({}).replace(b'"object":{}', b'"object":' + content)
    options = replace(UPLINKS, properties={path: "pm10", "a": "a", "a.a": "aa"})

    assert [row[6] for row in rows_of(decode([payload], options))] == [7.0]


def deep(levels: int) -> bytes:
    content = b'{"a":' * levels + b"[]" + b"}" * levels
    return uplink({}).replace(b'"object":{}', b'"object":' + content)


@pytest.mark.parametrize(
    ("most", "more"),
    [
        (deep(uplink_content.DEPTH_MAX), deep(uplink_content.DEPTH_MAX + 1)),
        (
            uplink({f"k{k}": [] for k in range(uplink_content.KEYS_MAX)}),
            uplink({f"k{k}": [] for k in range(uplink_content.KEYS_MAX + 1)}),
        ),
    ],
)
def test_what_the_kernel_has_room_for_it_reads_and_no_more(
    most: bytes, more: bytes
) -> None:
    decoder = Watched(UPLINKS)

    decoded = decoder.decode(records_of([most, more]))

    assert [one.kind for one in decoded.ignored] == ["up", "up"]
    assert decoder.fates == [uplink_scan.EMPTY, uplink_scan.DOUBTED]


def test_a_key_that_shares_the_hash_of_a_mapped_one_is_another() -> None:
    decoder = Watched(UPLINKS)
    paths = decoder._paths
    key = np.frombuffer(b"pm11".ljust(64), np.uint8)
    state, _ = uplink_content.key_hash(key.ctypes.data, 4)
    node = paths._nodes[1]
    node[uplink_content.HASH] = np.uint64(state).view(np.int64)
    uplink_content.enter(paths.rules.ctypes.data, node.ctypes.data, uplink_content.HASH)

    decoder.decode(records_of([uplink({"pm11": 1})]))

    assert decoder.fates == [uplink_scan.EMPTY]


def test_a_flood_of_devices_begins_a_new_vocabulary() -> None:
    decoder = ChirpStack(UPLINKS)
    decoder._sheet = Sheet(names_max=3)
    laps = [
        [encode_uplink(f"{lap}-{k}", 0, {"air": {"no2": k}}) for k in range(5)]
        for lap in range(3)
    ]

    found = [decoder.decode(records_of(lap)) for lap in laps]

    assert len({id(decoded.vocabulary) for decoded in found}) == 3
    for lap, decoded in enumerate(found):
        assert [row[2:5] for row in rows_of(decoded)] == [
            (f"{lap}-{k}", "no2", "ug/m3") for k in range(5)
        ]

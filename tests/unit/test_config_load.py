"""From the file and its overlays to settings."""

import dataclasses
import json
import re
import tomllib
from pathlib import Path
from zoneinfo import ZoneInfo

import jsonschema
import pytest
import tzdata  # type: ignore[import-untyped]  # it has no stubs
from pydantic import ValidationError

from streamproc.codecs.chirpstack_strict import ChirpStackOptions
from streamproc.config import config_schema, describe, load
from streamproc.config.units import StartPoint
from streamproc.core.definition import CitySpec, DeviceSpec, RuleSpec, WindowSpec
from streamproc.core.flush import BufferPolicy, FlushPolicy, SnapshotPolicy
from streamproc.core.ports import StartAt
from streamproc.simulate.towns import TOWNS
from tests.support import wire
from tests.support.configs import CHIRPSTACK, DESIGN, LEAST, PACKED, faults, settings

REPOSITORY = Path(__file__).parents[2]
FORMATS_EXPLAINED = re.findall(
    r"```toml\n(.*?)```",
    (REPOSITORY / "docs" / "operator.md").read_text("utf-8"),
    re.DOTALL,
)
EXAMPLES = ["minimal.toml", "local.toml", "towns.toml"]
MINUTE_US = 60_000_000
HOUR_US = 3_600_000_000


def test_the_example_of_the_design_loads_unchanged(tmp_path: Path) -> None:
    found = settings(tmp_path, DESIGN)

    definition = found.definition
    assert definition.job == "region"
    assert definition.windows == (
        WindowSpec("1h", HOUR_US, HOUR_US, 5 * MINUTE_US),
        WindowSpec("1m", MINUTE_US, MINUTE_US, MINUTE_US // 2, (0.5, 0.95)),
    )
    assert definition.rules == (
        RuleSpec(
            name="pm10-hour-high", property="pm10", window="1h", when="mean > 50",
            clear="mean < 45", for_us=2 * HOUR_US, severity="warning",
        ),
    )  # fmt: skip
    assert definition.cities == (CitySpec("razlog", "Razlog", "Europe/Sofia"),)
    assert definition.topic_cities == (("telemetry.razlog", "razlog"),)
    assert definition.tzdata == tzdata.IANA_VERSION
    assert found.weights == {"razlog": 1}
    assert found.group == "streamproc-region"


def test_the_least_file_has_the_defaults_of_the_design(tmp_path: Path) -> None:
    found = settings(tmp_path, LEAST)

    assert found.flush == FlushPolicy()
    assert found.buffer == BufferPolicy()
    assert found.snapshot == SnapshotPolicy()
    assert found.processing.idle_after_us == MINUTE_US
    assert (found.definition.dedup, found.definition.watermark) == (1, "city")
    assert found.definition.future_us == 5 * MINUTE_US
    assert found.definition.past_us is None
    assert found.definition.forget_us == 30 * 24 * HOUR_US
    assert found.source.start == StartPoint(StartAt.EARLIEST)
    assert found.source.session_timeout_us == 45_000_000
    assert (found.metrics.host, found.metrics.port) == ("127.0.0.1", 9464)
    assert found.topics.format_of("telemetry.razlog") == "json"


@pytest.mark.parametrize("name", EXAMPLES)
def test_every_example_loads_and_suits_the_schema(name: str) -> None:
    path = REPOSITORY / "deploy" / "config" / name

    found = load(path, {})

    jsonschema.validate(tomllib.loads(path.read_text("utf-8")), config_schema())
    assert found.definition.windows


def test_the_towns_are_the_seven_of_the_simulation() -> None:
    found = load(REPOSITORY / "deploy" / "config" / "towns.toml", {})

    assert [(c.slug, c.name, c.timezone) for c in found.definition.cities] == sorted(
        (town.slug, town.name, town.timezone) for town in TOWNS
    )


def test_the_compose_environment_overrides_the_towns_file() -> None:
    env = {
        "STREAMPROC_SOURCE__BOOTSTRAP_SERVERS": "kafka:9092",
        "STREAMPROC_SOURCE__ALLOW_PLAINTEXT": "true",
        "STREAMPROC_OUTPUT__ROOT": "/data",
        "STREAMPROC_METRICS__HOST": "10.0.0.5",
        "STREAMPROC_BAKED_CACHE": "somewhere",
        "PATH": "ignored",
    }

    found = load(REPOSITORY / "deploy" / "config" / "towns.toml", env)

    assert found.source.bootstrap_servers == "kafka:9092"
    assert found.source.allow_plaintext
    assert found.output.root == "/data"
    assert found.metrics.host == "10.0.0.5"


def test_every_kind_of_value_can_come_from_the_environment(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        LEAST,
        {
            "STREAMPROC_OUTPUT__FLUSH_AGE": "10s",
            "STREAMPROC_OUTPUT__FLUSH_BYTES": "8MiB",
            "STREAMPROC_OUTPUT__BUFFER_BYTES": "32MiB",
            "STREAMPROC_OUTPUT__LEVEL": "3",
            "STREAMPROC_SOURCE__MAX_RATE": "1500.5",
            "STREAMPROC_SOURCE__TOPICS": "a.{city}, b.{city}",
            "STREAMPROC_SOURCE__START": "2026-03-01T00:00:00Z",
            "STREAMPROC_SOURCE__FORMATS": '{"a.razlog": "arrow"}',
            "STREAMPROC_CITIES__RAZLOG__WEIGHT": "5",
            "streamproc_cities__ange__timezone": "Europe/Stockholm",
            "STREAMPROC_JSON__STRING_NUMBERS": "yes",
            "STREAMPROC_WINDOWS": '[{"name": "5m", "every": "5m", "quantiles": [0.9]}]',
        },
    )

    assert found.flush == FlushPolicy(bytes_max=8 << 20, age_us_max=10_000_000)
    assert found.buffer == BufferPolicy(32 << 20)
    assert (found.output.level, found.source.max_rate) == (3, 1500.5)
    assert found.topics.names == ("a.ange", "a.razlog", "b.ange", "b.razlog")
    assert found.topics.format_of("a.razlog") == "arrow"
    assert found.source.start.time_us == 1_772_323_200_000_000
    assert found.weights == {"ange": 1, "razlog": 5}
    assert found.codecs.json.string_numbers
    assert [window.name for window in found.definition.windows] == ["5m"]


def test_the_command_line_is_stronger_than_environment_and_file(tmp_path: Path) -> None:
    env = {"STREAMPROC_OUTPUT__ROOT": "from-env"}

    found = settings(tmp_path, DESIGN, env, {"output.root": "x", "output.level": 4})

    assert (found.output.root, found.output.level) == ("x", 4)


def test_without_a_file_overrides_are_enough() -> None:
    found = load(
        None,
        {},
        {
            "cities": {"ange": {"timezone": "Europe/Stockholm"}},
            "windows": [{"name": "1m", "every": "1m"}],
        },
    )

    assert found.path is None
    assert found.zones["ange"].key == "Europe/Stockholm"


def test_settings_cannot_be_changed(tmp_path: Path) -> None:
    found = settings(tmp_path, LEAST)

    with pytest.raises(dataclasses.FrozenInstanceError):
        found.group = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        found.output.root = "other"


def test_rearranging_the_file_leaves_the_definition_as_it_is(tmp_path: Path) -> None:
    head = (
        '[cities.b]\ntimezone = "Europe/Riga"\n[cities.a]\ntimezone = "Europe/Riga"\n'
    )
    tail = (
        '[cities.a]\ntimezone = "Europe/Riga"\n[cities.b]\ntimezone = "Europe/Riga"\n'
    )
    one = '[[windows]]\nname = "1m"\nevery = "1m"\n'
    two = '[[windows]]\nname = "1h"\nevery = "1h"\n'

    first = settings(tmp_path, head + one + two).definition.sha256()
    second = settings(tmp_path, tail + two + one).definition.sha256()

    assert first == second


def test_the_definition_survives_its_canonical_text(tmp_path: Path) -> None:
    definition = settings(tmp_path, DESIGN).definition

    assert type(definition).from_canonical(definition.canonical()) == definition


def test_zones_come_from_the_tzdata_package(tmp_path: Path) -> None:
    found = settings(tmp_path, LEAST)

    assert isinstance(found.zones["razlog"], ZoneInfo)
    assert found.zones["razlog"].key == "Europe/Sofia"


# --- topics -----------------------------------------------------------------------------


def test_the_pattern_also_reads_topics_of_unknown_cities(tmp_path: Path) -> None:
    found = settings(tmp_path, DESIGN)

    assert found.topics.pattern == r"telemetry\.[a-z0-9-]{1,32}"


def test_unknown_cities_can_be_left_alone(tmp_path: Path) -> None:
    found = settings(
        tmp_path,
        '[source]\ntopics = ["t.{city}", "u.{city}.x"]\nunknown_topics = "ignore"\n'
        + LEAST,
    )

    assert found.topics.pattern == r"(?:t\.(?:razlog))|(?:u\.(?:razlog)\.x)"


def test_a_shared_topic_is_placed_by_the_device_list(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "city,device,interval,scale,offset\nrazlog,r2,5m,1.02,-0.5\nrazlog,r1,,,\n"
    )
    text = 'devices_file = "list.csv"\n[source]\ntopics = "shared"\n' + LEAST
    text += '[[devices]]\ncity = "razlog"\ndevice = "r0"\ninterval = "30m"\n'

    found = settings(tmp_path, text)

    assert found.topics.shared == ("shared",)
    assert found.topics.cities == {}
    assert found.definition.devices == (
        DeviceSpec("razlog", "r0", 30 * MINUTE_US),
        DeviceSpec("razlog", "r1"),
        DeviceSpec("razlog", "r2", 5 * MINUTE_US, 1.02, -0.5),
    )


def test_a_device_list_may_be_toml(tmp_path: Path) -> None:
    (tmp_path / "list.toml").write_text(
        '[[devices]]\ncity = "razlog"\ndevice = "r1"\nscale = 2.0\n'
    )

    found = settings(tmp_path, 'devices_file = "list.toml"\n' + LEAST)

    assert found.definition.devices == (DeviceSpec("razlog", "r1", None, 2.0),)


# --- secrets ----------------------------------------------------------------------------

SASL = '[source]\nprotocol = "sasl_ssl"\nusername = "u"\nbootstrap_servers = "k:9093"\n'


def test_a_password_is_read_from_the_file_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("geheim \n")

    found = settings(tmp_path, SASL + 'password_file = "pw"\n' + LEAST)

    assert found.source.password is not None
    assert found.source.password.get_secret_value() == "geheim "
    assert "geheim" not in repr(found)


def test_a_password_may_come_from_the_environment(tmp_path: Path) -> None:
    found = settings(tmp_path, SASL + LEAST, {"STREAMPROC_SOURCE__PASSWORD": "123456"})

    assert found.source.password is not None
    assert found.source.password.get_secret_value() == "123456"


@pytest.mark.parametrize(
    "variable", ["STREAMPROC_SECRETS_DIR", "CREDENTIALS_DIRECTORY"]
)
def test_a_folder_of_secrets_is_read(tmp_path: Path, variable: str) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "streamproc_source__password").write_text("geheim\n")
    (folder / "tls.crt").write_bytes(b"\xff not ours")

    found = settings(tmp_path, SASL + LEAST, {variable: str(folder)})

    assert found.source.password is not None
    assert found.source.password.get_secret_value() == "geheim"


def test_webhook_secrets_are_read_newest_first(tmp_path: Path) -> None:
    (tmp_path / "new").write_text("n" * 32 + "\n")
    (tmp_path / "old").write_text("o" * 32 + "\n")
    hook = (
        '[[webhooks]]\nurl = "https://x.example/hook"\nsecret_files = ["new", "old"]\n'
    )

    found = settings(tmp_path, LEAST + hook)

    assert [s.get_secret_value()[0] for s in found.webhooks[0].secrets] == ["n", "o"]
    assert "nnnn" not in repr(found)


def test_a_webhook_has_its_cities_and_its_own_authorities(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("k" * 32)
    (tmp_path / "ca.pem").touch()
    hook = (
        '[[webhooks]]\nurl = "https://x.example/hook"\nsecret_file = "key"\n'
        'cities = "razlog"\nca_file = "ca.pem"\n'
    )

    (found,) = settings(tmp_path, LEAST + hook).webhooks

    assert found.cities == ("razlog",)
    assert found.ca_file == str(tmp_path / "ca.pem")


# --- codecs and files ---------------------------------------------------------------------


def test_codec_options_reach_the_codecs(tmp_path: Path) -> None:
    text = '[json]\ndevice = "id"\nassume_zone = "UTC"\n[avro]\ntime_unit = "s"\n'
    text += "[arrow]\ntrusted_producers = true\n" + LEAST

    codecs = settings(tmp_path, text).codecs

    assert (codecs.json.device, codecs.json.assume_zone) == ("id", "UTC")
    assert codecs.json.states["parking_state"]["occupied"] == 1.0
    assert codecs.avro.time_unit == "s"
    assert codecs.of("avro") == codecs.avro
    assert codecs.arrow.trusted_producers


def test_a_layout_reaches_the_codec(tmp_path: Path) -> None:
    found = settings(tmp_path, PACKED + LEAST)

    assert found.codecs.of(found.topics.format_of("telemetry.razlog")) == wire.PACKED
    jsonschema.validate(tomllib.loads(PACKED + LEAST), config_schema())


def test_what_is_mapped_reaches_the_codec(tmp_path: Path) -> None:
    found = settings(tmp_path, CHIRPSTACK + LEAST)

    options = found.codecs.of(found.topics.format_of("chirpstack.razlog"))
    assert isinstance(options, ChirpStackOptions)
    assert options.properties["list.1.t"] == "temperature"
    assert options.units == {"no2": "[ppb]"}
    assert (options.device, options.booleans, options.unmapped) == (
        *("devEui", False, "ignore"),
    )
    assert options.states["parking_state"]["occupied"] == 1.0
    jsonschema.validate(tomllib.loads(CHIRPSTACK + LEAST), config_schema())


@pytest.mark.parametrize("block", FORMATS_EXPLAINED)
def test_what_the_manual_shows_of_formats_loads(tmp_path: Path, block: str) -> None:
    (tmp_path / "s3.secret").write_text("as the manual names it")
    found = settings(tmp_path, block + LEAST)

    assert found.codecs.of(found.topics.default) is not None


def test_a_layout_may_have_texts_and_a_scale_and_no_quality(tmp_path: Path) -> None:
    text = (
        PACKED.replace('{ at = 0, type = "u32", prefix = "m-" }', "D")
        .replace("D", '{ at = 20, type = "text", length = 4 }')
        .replace("quality = { at = 20 }\n", "byte_order = 'big'\n")
        .replace('"f32"', '"i16", scale = 0.1')
    )

    assert settings(tmp_path, text + LEAST).codecs.packed == dataclasses.replace(
        wire.PACKED,
        byte_order="big",
        device_at=20,
        device_type="text",
        device_length=4,
        device_prefix="",
        value_type="i16",
        value_scale=0.1,
        quality_at=None,
    )


def test_files_of_one_city_are_placed_by_their_stream(tmp_path: Path) -> None:
    text = LEAST + (
        '[files]\nstream = "prsa"\ntime = ["year", "month"]\ntime_format = "%Y %m %d"\n'
        'timezone = "Asia/Shanghai"\ndevice = "station"\ncity_fixed = "razlog"\n'
        'missing = "NA"\nvalid = { column = "ok", equals = 1 }\n'
        '[files.columns."PM2.5"]\nproperty = "pm2_5"\n'
        '[files.columns.CO]\nproperty = "co"\nunit = "ug/m3"\n'
        '[files.columns.wd]\nproperty = "wind_direction"\nmap = { N = 0.0, E = 90 }\n'
    )
    text = text.replace("equals = 1 }", 'equals = ["1", 2] }')

    found = settings(tmp_path, text)

    assert ("prsa", "razlog") in found.definition.topic_cities
    assert found.files.time == ("year", "month")
    assert found.files.missing == ("NA",)
    assert found.files.valid is not None
    assert found.files.valid.equals == ("1", "2")
    assert found.files.columns["wd"].map == {"N": 0.0, "E": 90.0}
    assert list(found.files.columns) == ["PM2.5", "CO", "wd"]


def test_own_properties_join_the_shipped_ones_and_may_replace_them(
    tmp_path: Path,
) -> None:
    text = LEAST + (
        '[[properties]]\nproperty = "goose_count"\nunit = "1"\nlow = 0\n'
        '[[properties]]\nproperty = "pm10"\nunit = "ug/m3"\nhigh = 500\n'
        'units = { "mg/m3" = { scale = 1000 } }\nstates = { clean = 0 }\n'
    )

    found = {
        spec.property: spec for spec in settings(tmp_path, text).definition.properties
    }

    assert found["goose_count"].low == 0.0
    assert found["pm10"].high == 500.0
    assert found["pm10"].units == (("mg/m3", 1000.0, 0.0),)
    assert found["pm10"].states == (("clean", 0.0),)
    assert found["pm2_5"].unit == "ug/m3"


# --- the schema and the explanation -------------------------------------------------------


def test_the_committed_schema_is_the_schema_of_the_code() -> None:
    committed = (REPOSITORY / "schemas" / "config.schema.json").read_text("utf-8")

    text = json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"

    assert committed == text, (
        "run: streamproc schema config > schemas/config.schema.json"
    )


def test_every_option_of_the_schema_says_what_it_does_and_its_default() -> None:
    schema = config_schema()
    tables = [schema, *schema["$defs"].values()]

    for table in tables:
        required = table.get("required", ())
        for key, option in table["properties"].items():
            text = option.get("description", "")
            assert text, f"{key} of {table.get('description')}"
            is_table = "$ref" in option or option.get("type") in {"array", "object"}
            assert is_table or "Default:" in text or key in required, (key, text)


def test_the_schema_has_no_place_for_secrets() -> None:
    names = {
        name
        for table in config_schema()["$defs"].values()
        for name in table["properties"]
    }

    assert not {"password", "key_password", "secrets"} & names
    assert {"password_file", "secret_file"} <= names


def test_the_schema_takes_the_design_and_refuses_a_typo() -> None:
    document = tomllib.loads(DESIGN)
    jsonschema.validate(document, config_schema())

    document["windows"][0]["every"] = "1 minute"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, config_schema())


def test_the_explanation_is_plain_data_with_costs(tmp_path: Path) -> None:
    found = describe(settings(tmp_path, DESIGN))

    assert json.loads(json.dumps(found)) == found
    assert [(w["window"], w["slots"]) for w in found["windows"]] == [
        ("1h", 2),
        ("1m", 2),
    ]
    assert found["files_per_day"]["aggregates"] == {"1h": 24, "1m": 1440}
    assert found["files_per_day"]["readings"] == 1440
    assert found["source"]["topics"] == [
        {"topic": "telemetry.razlog", "city": "razlog", "format": "json"}
    ]
    assert found["memory"]["buffered_per_partition"] == "64MiB"
    assert found["memory"]["buffered_together"] == "256MiB"
    window = found["windows"][0]
    assert found["memory"]["bytes_per_series"] > window["bytes_per_series"]
    assert window["bytes_per_series"] > window["bytes_per_series_for_quantiles"]


def test_the_file_may_name_any_city_of_the_template(tmp_path: Path) -> None:
    assert faults(tmp_path, DESIGN) == ()

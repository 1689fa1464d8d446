"""Wrong configurations and what the operator reads: each message is part of the product."""

from pathlib import Path

import pytest

from streamproc.config import load
from streamproc.errors import ConfigError
from tests.support.configs import CHIRPSTACK, DESIGN, LEAST, PACKED, faults

CITY = '[cities.razlog]\ntimezone = "Europe/Sofia"\n'
RULE = '[[rules]]\nname = "r"\nproperty = "pm10"\n'
SHORT = "must be 1 to 32 of a-z, 0-9 and hyphen"

WRONG: dict[str, tuple[str, list[str]]] = {
    # the file itself
    "no city": (
        '[[windows]]\nname = "1h"\nevery = "1h"\n',
        ["town.toml: cities: is missing: at least one [cities.<slug>] with its timezone"],
    ),
    "no window": (
        CITY,
        ["town.toml: windows: is missing: at least one [[windows]] with name and every"],
    ),
    "syntax": (
        "[job]\nname = region\n",
        ["town.toml: line 2, column 8: Invalid value"],
    ),
    "a key twice": (
        '[job]\nname = "a"\nname = "b"\n',
        ["town.toml: line 3, column 11: Cannot overwrite a value"],
    ),
    "unfinished text": (
        '[job]\nname = """region',
        ["town.toml: end of the file: Unterminated string"],
    ),
    # unknown keys
    "unknown key": (
        LEAST + 'latenes = "1m"\n',
        ['town.toml: windows[0].latenes = "1m": unknown key; did you mean lateness?'],
    ),
    "unknown section": (
        '[outputs]\nroot = "x"\n' + LEAST,
        ['town.toml: outputs = {"root": "x"}: unknown key; did you mean output?'],
    ),
    "unknown key of a city": (
        LEAST.replace("timezone", "time_zone"),
        [
            "town.toml: cities.razlog.timezone: is missing",
            ('town.toml: cities.razlog.time_zone = "Europe/Sofia": unknown key; '
            "did you mean timezone?"),
        ],
    ),
    "nothing near": (
        "[log]\nxyzzy = 1\n" + LEAST,
        ["town.toml: log.xyzzy = 1: unknown key; there are format, level"],
    ),
    "key with a dot": (
        '[log]\n"a.b" = 1\n' + LEAST,
        ['town.toml: log."a.b" = 1: unknown key; there are format, level'],
    ),
    # types and values
    "number for text": (
        "[output]\nroot = 5\n" + LEAST,
        ["town.toml: output.root = 5: must be text, in quotes"],
    ),
    "text for number": (
        '[metrics]\nport = "9464"\n' + LEAST,
        ['town.toml: metrics.port = "9464": must be a whole number'],
    ),
    "true for number": (
        "[processing]\ndedup = true\n" + LEAST,
        ["town.toml: processing.dedup = true: must be a whole number"],
    ),
    "text for truth": (
        '[json]\nstring_numbers = "yes"\n' + LEAST,
        [
            'town.toml: json.string_numbers = "yes": must be true or false, without quotes'
        ],
    ),
    "value for section": (
        'output = "data"\n' + LEAST,
        ['town.toml: output = "data": must be a table, [output]'],
    ),
    "table for list": (
        LEAST.replace("[[windows]]", "[windows]"),
        [
            'town.toml: windows = {"name": "1h", "every": "1h"}: must be a list, in brackets'
        ],
    ),
    "value in list of tables": (
        'rules = ["x"]\n' + LEAST,
        ['town.toml: rules[0] = "x": must be a table, [[rules]]'],
    ),
    "not finite": (
        LEAST + '[[properties]]\nproperty = "x"\nunit = "1"\nlow = nan\n',
        ["town.toml: properties[0].low = NaN: must be a finite number"],
    ),
    "choice": (
        '[output]\ncodec = "gzip"\n' + LEAST,
        ['town.toml: output.codec = "gzip": must be one of zstd, lz4, snappy, none'],
    ),
    "too large": (
        "[processing]\ndedup = 17\n" + LEAST,
        ["town.toml: processing.dedup = 17: must be at most 16"],
    ),
    "too small": (
        "[output]\nsnapshots_kept = 0\n" + LEAST,
        ["town.toml: output.snapshots_kept = 0: must be at least 1"],
    ),
    "duration without unit": (
        LEAST.replace('every = "1h"', "every = 3600"),
        [
            ("town.toml: windows[0].every = 3600: not a duration; write 250ms, 30s, 1m, "
            "1h30m or 2d, in quotes")
        ],
    ),
    "duration out of range": (
        '[output]\nflush_age = "500ms"\n' + LEAST,
        ['town.toml: output.flush_age = "500ms": must lie between 1s and 1d'],
    ),
    "size": (
        '[output]\nflush_bytes = "64 megs"\n' + LEAST,
        [
            ('town.toml: output.flush_bytes = "64 megs": not a size; write 512KiB, 64MiB, '
            "1GiB (or kB, MB, GB), in quotes")
        ],
    ),
    "a partition may hold more than all of them": (
        '[output]\nflush_bytes = "512MiB"\n' + LEAST,
        ["town.toml: output.buffer_bytes: must be at least flush_bytes = 512MiB"],
    ),
    "fetch size": (
        '[source]\nfetch_bytes = "64MiB"\n' + LEAST,
        ['town.toml: source.fetch_bytes = "64MiB": must lie between 16MiB and 32MiB'],
    ),
    "part of a second": (
        '[source]\nheartbeat = "1500ms"\n' + LEAST,
        ['town.toml: source.heartbeat = "1500ms": must be whole seconds'],
    ),
    "start without zone": (
        '[source]\nstart = "2026-03-01T00:00:00"\n' + LEAST,
        [
            ('town.toml: source.start = "2026-03-01T00:00:00": a time without a zone; '
            "end it with Z or an offset such as +02:00")
        ],
    ),
    "job name": (
        '[job]\nname = "My Region"\n' + LEAST,
        [f'town.toml: job.name = "My Region": {SHORT}'],
    ),
    # cities
    "slug": (
        LEAST.replace("[cities.razlog]", '[cities."Разлог"]'),
        [f'town.toml: cities."\\u0420\\u0430\\u0437\\u043b\\u043e\\u0433": a slug {SHORT}'],
    ),
    "zone": (
        LEAST.replace("Sofia", "Sofya"),
        [
            ('town.toml: cities.razlog.timezone = "Europe/Sofya": no such IANA zone; '
            "did you mean Europe/Sofia?")
        ],
    ),
    "zone is a path": (
        LEAST.replace("Europe/Sofia", "../../etc/passwd"),
        [
            ('town.toml: cities.razlog.timezone = "../../etc/passwd": no such IANA zone; '
            "write one such as Europe/Sofia")
        ],
    ),
    # windows
    "window twice": (
        LEAST + '[[windows]]\nname = "1h"\nevery = "2h"\n',
        ['town.toml: windows[1].name = "1h": another window has this name'],
    ),
    "window name as a path": (
        LEAST.replace('name = "1h"', 'name = "a/b"'),
        [
            ('town.toml: windows[0].name = "a/b": must be 1 to 32 letters, digits, dot, _ '
            "and -, and begin with a letter or digit")
        ],
    ),
    "size below every": (
        LEAST + 'size = "30m"\n',
        ['town.toml: windows[0].size = "30m": must not be shorter than every = 1h'],
    ),
    "too many panes": (
        LEAST + 'size = "3601s"\n',
        [
            ('town.toml: windows[0].size = "3601s": needs 3601 panes of 1s, at most 1440; '
            "choose size as a multiple of every")
        ],
    ),
    "too much lateness": (
        LEAST + 'lateness = "64h"\n',
        [
            ('town.toml: windows[0].lateness = "64h": needs 128 open windows per series, '
            "at most 64: lateness up to 2d15h for every = 1h")
        ],
    ),
    "too many open panes": (
        LEAST + 'size = "2h"\nlateness = "4095h"\n',
        [
            ('town.toml: windows[0].lateness = "4095h": needs 8192 open panes per series, '
            "at most 4096")
        ],
    ),
    "quantiles": (
        LEAST + "quantiles = [0.5, 1.0, 0.50]\n",
        [
            "town.toml: windows[0].quantiles[1] = 1.0: must lie between 0 and 1, exclusive",
            "town.toml: windows[0].quantiles[2] = 0.5: is listed twice",
        ],
    ),
    # rules
    "rule without condition": (
        LEAST + RULE,
        ["town.toml: rules[0]: needs when, or no_data, or both"],
    ),
    "rule of an unknown property": (
        LEAST + RULE.replace("pm10", "pm25") + 'when = "value > 1"\n',
        ['town.toml: rules[0].property = "pm25": no such property; did you mean pm2_5?'],
    ),
    "rule of an undeclared property": (
        LEAST + RULE.replace("pm10", "geese") + 'when = "value > 1"\n',
        [
            ('town.toml: rules[0].property = "geese": no such property; declare it with '
            "[[properties]]")
        ],
    ),
    "rule of an unknown window": (
        LEAST + RULE + 'window = "2h"\nwhen = "mean > 1"\n',
        ['town.toml: rules[0].window = "2h": no such window; there are 1h'],
    ),
    "rule with an unknown variable": (
        LEAST + RULE + 'window = "1h"\nwhen = "count > 3 and maen > 1"\n',
        [
            ('town.toml: rules[0].when = "count > 3 and maen > 1": column 15: unknown name '
            "'maen'; did you mean mean?")
        ],
    ),
    "rule with an undeclared quantile": (
        LEAST + RULE + 'window = "1h"\nwhen = "mean > 1"\nclear = "p95 < 1"\n',
        [
            ('town.toml: rules[0].clear = "p95 < 1": column 1: p95 needs 0.95 in the '
            "quantiles of window '1h'")
        ],
    ),
    "quantile on readings": (
        LEAST + RULE + 'when = "p95 > 1"\n',
        [
            ("town.toml: rules[0].when = \"p95 > 1\": column 1: p95 is of a window's "
            "aggregates; name a window")
        ],
    ),
    "rule that calls": (
        LEAST + RULE + 'when = "abs(value) > 1"\n',
        [
            ('town.toml: rules[0].when = "abs(value) > 1": column 1: only comparisons, '
            "and/or/not, + - * / and names")
        ],
    ),
    "clear without when": (
        LEAST + RULE + 'no_data = "1h"\nclear = "value < 1"\n',
        [
            ('town.toml: rules[0].clear = "value < 1": ends what `when` opens, which is '
            "missing")
        ],
    ),
    "for and window without when": (
        LEAST + RULE + 'no_data = "1h"\nfor = "5m"\nwindow = "1h"\n',
        [
            'town.toml: rules[0].for = "5m": belongs to `when`, which is missing',
            'town.toml: rules[0].window = "1h": belongs to `when`, which is missing',
        ],
    ),
    "rule twice, of no city": (
        LEAST + 2 * (RULE + 'when = "value > 1"\ncities = ["razlig"]\n'),
        [
            'town.toml: rules[1].name = "r": another rule has this name',
            'town.toml: rules[0].cities[0] = "razlig": no such city; did you mean razlog?',
            'town.toml: rules[1].cities[0] = "razlig": no such city; did you mean razlog?',
        ],
    ),
    # properties and devices
    "property": (
        LEAST
        + '[[properties]]\nproperty = "x"\nunit = "1"\nlow = 2\nhigh = 1\n'
        + 'units = { "1" = {}, k = { scale = 0 } }\n',
        [
            "town.toml: properties[0].low = 2: must be less than high = 1",
            'town.toml: properties[0].units.1: is the canonical unit itself',
            "town.toml: properties[0].units.k.scale = 0: must not be 0",
        ],
    ),
    "device of no city, and twice": (
        LEAST + 2 * '[[devices]]\ncity = "here"\ndevice = "d"\n',
        [
            'town.toml: devices[0].city = "here": no such city; there are razlog',
            'town.toml: devices[1].city = "here": no such city; there are razlog',
            'town.toml: devices[1].device = "d": is listed twice for its city',
        ],
    ),
    "no device list": (
        'devices_file = "list.csv"\n' + LEAST,
        ["list.csv: No such file or directory"],
    ),
    # the cluster
    "server": (
        '[source]\nbootstrap_servers = "localhost"\n' + LEAST,
        ["town.toml: source.bootstrap_servers = \"localhost\": 'localhost' is not host:port"],
    ),
    "plain text to another host": (
        '[source]\nbootstrap_servers = "127.0.0.1:9092,kafka.example:9092"\n' + LEAST,
        [
            ('town.toml: source.bootstrap_servers = "127.0.0.1:9092,kafka.example:9092": '
            "kafka.example would be reached without encryption; set protocol = "
            '"sasl_ssl" or "ssl", or allow_plaintext = true on a network you trust')
        ],
    ),
    "log in without a name": (
        '[source]\nprotocol = "sasl_ssl"\n' + LEAST,
        [
            "town.toml: source.username: is missing: sasl_ssl logs in",
            "town.toml: source.password_file: is missing: sasl_ssl logs in",
        ],
    ),
    "name without a log in": (
        '[source]\nusername = "u"\n' + LEAST,
        [
            ('town.toml: source.username = "u": has no effect with protocol plaintext; '
            "sasl_ssl logs in")
        ],
    ),
    "no such certificate": (
        '[source]\nprotocol = "ssl"\nca_file = "ca.pem"\nkey_file = "k"\n' + LEAST,
        [
            'town.toml: source.key_file = "k": needs cert_file',
            'town.toml: source.ca_file = "ca.pem": no such file',
            'town.toml: source.key_file = "k": no such file',
        ],
    ),
    "heartbeat": (
        '[source]\nheartbeat = "3s"\nsession_timeout = "6s"\n' + LEAST,
        [
            ('town.toml: source.heartbeat = "3s": must be at most a third of '
            "session_timeout = 6s")
        ],
    ),
    "drain longer than a rebalance": (
        '[shutdown]\ndrain = "2m"\n' + LEAST,
        [
            ("town.toml: source.rebalance_timeout: must exceed [shutdown] drain = 2m, or a "
            "slow drain costs partitions")
        ],
    ),
    "shared topic": (
        '[source]\ntopics = ["telemetry"]\n' + LEAST,
        [
            ("town.toml: source.topics: telemetry is shared by all cities: list its devices "
            "with devices_file or [[devices]], or put {city} into the topic")
        ],
    ),
    "topic name": (
        '[source]\ntopics = "telemetry/{city}"\n' + LEAST,
        [
            ('town.toml: source.topics = "telemetry/{city}": not a topic name: letters, '
            "digits, dot, _ and -, and {city} for the slug")
        ],
    ),
    "format of an unknown topic": (
        '[source]\nformats = { "telemetry.razlg" = "arrow" }\n' + LEAST,
        [
            ('town.toml: source.formats."telemetry.razlg" = "arrow": no such topic; '
            "did you mean telemetry.razlog?")
        ],
    ),
    "alert topic is read": (
        '[alerts]\ntopic = "telemetry.razlog"\n' + LEAST,
        [
            ('town.toml: alerts.topic = "telemetry.razlog": is one of the topics that are '
            "read")
        ],
    ),
    # registry, codecs, output, webhooks
    "no registry": (
        '[source]\nformat = "avro"\n' + LEAST,
        ["town.toml: registry: is missing: avro records need its url"],
    ),
    "plain registry": (
        '[registry]\nurl = "http://registry.example:8081"\n' + LEAST,
        [
            ('town.toml: registry.url = "http://registry.example:8081": is not encrypted; '
            "use https, or allow_plaintext = true")
        ],
    ),
    "registry url": (
        '[registry]\nurl = "registry:8081"\n' + LEAST,
        ['town.toml: registry.url = "registry:8081": is not an http:// or https:// URL'],
    ),
    "two fields of one name": (
        '[json]\ntime = "t"\nvalue = "t"\n' + LEAST,
        ['town.toml: json.value = "t": is also the name of time'],
    ),
    "field that JSON escapes": (
        "[json]\ntime = 'a\\b'\n" + LEAST,
        [
            (
                'town.toml: json.time = "a\\\\b": is too long, or has a character that '
                "JSON escapes"
            )
        ],
    ),
    "no layout": (
        '[source]\nformats = { "telemetry.razlog" = "packed" }\n' + LEAST,
        ["town.toml: packed: is missing: packed records need their layout"],
    ),
    "a layout without a field": (
        PACKED.replace('value = { at = 16, type = "f32" }\n', "") + LEAST,
        ["town.toml: packed.value: is missing"],
    ),
    "a field of no known type": (
        PACKED.replace('"f32"', '"f16"') + LEAST,
        [
            'town.toml: packed.value.type = "f16": must be one of f32, f64, i16, i32',
        ],
    ),
    "fields that overlap, and one beyond the end": (
        PACKED.replace("at = 4,", "at = 3,").replace("at = 16,", "at = 21,") + LEAST,
        [
            "town.toml: packed.property.at = 3: overlaps device, which has bytes 0 to 3",
            ("town.toml: packed.value.at = 21: bytes 21 to 24 do not lie within "
            "size = 24"),
        ],
    ),
    "a place before the beginning": (
        PACKED.replace("at = 4,", "at = -1,") + LEAST,
        ["town.toml: packed.property.at = -1: must be at least 0"],
    ),
    "codes beyond their type, of unknown properties": (
        PACKED.replace('"u16"', '"u8"').replace(
            '1 = "pm10", 2 = "no2"', '256 = "pm10", 01 = "no2", 3 = "pm11", x = "o3"'
        )
        + LEAST,
        [
            'town.toml: packed.properties.256 = "pm10": the code is no u8: 0 to 255',
            'town.toml: packed.properties.01 = "no2": the code is no u8: 0 to 255',
            ('town.toml: packed.properties.3 = "pm11": no such property; '
            "did you mean pm1?"),
            'town.toml: packed.properties.x = "o3": the code is no u8: 0 to 255',
        ],
    ),
    "a layout without properties": (
        PACKED.replace('1 = "pm10", 2 = "no2"', "").replace('pm10 = "ug/m3"', "")
        + LEAST,
        ["town.toml: packed.properties: names no property"],
    ),
    "units of a layout": (
        PACKED.replace('pm10 = "ug/m3"', 'pm10 = "ug/m4", o3 = "ug/m3"') + LEAST,
        [
            ('town.toml: packed.units.pm10 = "ug/m4": no unit of pm10; '
            "did you mean ug/m3?"),
            ('town.toml: packed.units.o3 = "ug/m3": not one of `properties`; '
            "there are no2, pm10"),
        ],
    ),
    "a text without length, a number with one": (
        PACKED.replace('"u32", prefix = "m-"', '"text"')
        .replace('"f32"', '"f32", scale = 0') + LEAST,
        [
            "town.toml: packed.device: a device of type text has a length",
            "town.toml: packed.value.scale = 0: makes every value 0",
        ],
    ),
    "no map of uplinks": (
        '[source]\nformat = "chirpstack"\n' + LEAST,
        [
            "town.toml: chirpstack: is missing: properties says what in `object` is read",
        ],
    ),
    "a map of uplinks": (
        CHIRPSTACK.replace('"air.no2" = "no2"', '"air..no2" = "no3"') + LEAST,
        [
            ('town.toml: chirpstack.properties."air..no2" = "no3": the path has an empty '
            "part"),
            ('town.toml: chirpstack.properties."air..no2" = "no3": no such property; '
            "did you mean no?"),
            ('town.toml: chirpstack.units.no2 = "[ppb]": not one of `properties`; '
            "did you mean no3?"),
        ],
    ),
    "a path that is a table": (
        CHIRPSTACK.replace('"list.1.t"', "list.t") + LEAST,
        [
            ('town.toml: chirpstack.properties.list = {"t": "temperature"}: must be text, '
            "in quotes"),
        ],
    ),
    "object store": (
        '[output]\nroot = "s3://bucket/prefix"\n' + LEAST,
        [
            ('town.toml: output.root = "s3://bucket/prefix": object stores are not '
            "supported yet; name a folder")
        ],
    ),
    "webhook": (
        LEAST + '[[webhooks]]\nurl = "http://localhost:8080/x"\n',
        [
            ('town.toml: webhooks[0].url = "http://localhost:8080/x": must be https; to '
            "this host also http with allow_http_loopback = true"),
            "town.toml: webhooks[0].secret_file: is missing: deliveries are signed",
        ],
    ),
    "webhook of no city, with no certificate": (
        LEAST
        + '[[webhooks]]\nurl = "https://x.example"\nsecret_file = "s"\n'
        + 'cities = ["razlog", "razlig"]\nca_file = "ca.pem"\n',
        [
            ('town.toml: webhooks[0].cities[1] = "razlig": no such city; '
            "did you mean razlog?"),
            'town.toml: webhooks[0].secret_file = "s": No such file or directory',
            'town.toml: webhooks[0].ca_file = "ca.pem": no such file',
        ],
    ),
    "secrets in the file": (
        '[source]\npassword = "geheim"\n'
        + LEAST
        + '[[webhooks]]\nurl = "https://x.example"\nsecret = "geheim"\n'
        + "secret_file = \"s\"\n",
        [
            ("town.toml: source.password = ***: a secret does not belong in the file; name "
            "a file with password_file, or set STREAMPROC_SOURCE__PASSWORD"),
            ("town.toml: webhooks[0].secret = ***: a secret does not belong in the file; "
            "name a file with secret_file"),
            'town.toml: webhooks[0].secret_file = "s": No such file or directory',
        ],
    ),
    "secret in a url": (
        '[registry]\nurl = "https://user:geheim@registry.example"\n' + LEAST,
        ["town.toml: registry.url: a secret does not belong in a URL"],
    ),
    # files
    "files without a device": (
        LEAST + '[files]\ntime = "t"\nvalue = "v"\n',
        [
            "town.toml: files.device: is missing: a column, or device_fixed",
            "town.toml: files.property: property and value belong together",
        ],
    ),
    "files without a time": (
        LEAST + '[files]\ndevice = "d"\n',
        ["town.toml: files.time: is missing: CSV and Parquet need it"],
    ),
    "time format": (
        LEAST
        + '[files]\ntime = "t"\ntime_format = "%Y-%q"\ndevice = "d"\n'
        + '[files.columns.a]\nproperty = "pm10"\n',
        [
            ('town.toml: files.time_format = "%Y-%q": unknown directive %q; there are %Y '
            "%y %m %d %H %I %p %M %S %f %z %%")
        ],
    ),
    "columns": (
        LEAST
        + '[files]\ntime = "t"\ndevice = "d"\n[files.columns.a]\nproperty = "pm10"\n'
        + '[files.columns.b]\nproperty = "pm10"\nunit = "ug/m2"\n'
        + '[files.columns.c]\nproperty = "temprature"\n',
        [
            "town.toml: files.columns.b.property = \"pm10\": is also held by column 'a'",
            ('town.toml: files.columns.b.unit = "ug/m2": pm10 has no such unit; did you '
            "mean ug/m3?"),
            ('town.toml: files.columns.c.property = "temprature": no such property; did you mean '
            "temperature?"),
        ],
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_its_message(tmp_path: Path, name: str) -> None:
    text, expected = WRONG[name]

    assert list(faults(tmp_path, text)) == expected


def test_a_missing_file_is_one_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "no.toml", {})

    assert caught.value.faults == (f"{tmp_path}/no.toml: No such file or directory",)


def test_a_file_that_is_not_utf8_is_one_fault(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_bytes(b'name = "Fund\xe3o"')

    with pytest.raises(ConfigError, match=r"a\.toml: byte 12: not UTF-8"):
        load(tmp_path / "a.toml", {})


def test_faults_of_the_models_and_between_sections_come_all_at_once(
    tmp_path: Path,
) -> None:
    text = DESIGN.replace('every = "1m"', 'every = "1x"').replace(
        'property = "pm10"', 'property = "pm11"'
    )
    text = text.replace('lateness = "5m"', 'latness = "5m"') + (
        '[[rules]]\nname = "second"\nproperty = "no2"\nwindow = "1m"\nwhen = "mean > 1"\n'
        '[[rules]]\nname = "third"\nproperty = "no2"\nwindow = "1d"\nwhen = "mean > 1"\n'
        "[processing]\ndedup = 0\n"
    )

    found = faults(tmp_path, text, {"STREAMPROC_METRICS__PORT": "70000"})

    assert set(found) == {
        (
            'town.toml: windows[0].every = "1x": not a duration; write 250ms, 30s, 1m, 1h30m '
            "or 2d, in quotes"
        ),
        'town.toml: windows[1].latness = "5m": unknown key; did you mean lateness?',
        'town.toml: rules[0].property = "pm11": no such property; did you mean pm1?',
        'town.toml: rules[2].window = "1d": no such window; there are 1h, 1m',
        "town.toml: processing.dedup = 0: must be at least 1",
        "STREAMPROC_METRICS__PORT: metrics.port = 70000: must be at most 65535",
    }


def test_places_in_lists_stay_right_when_an_earlier_entry_is_wrong(
    tmp_path: Path,
) -> None:
    text = LEAST + (
        '[[rules]]\nname = "first"\nproperty = "pm10"\nwhen = 5\nbogus = 1\n'
        '[[rules]]\nproperty = "pm10"\nwhen = "value > 1"\n'
        '[[rules]]\nname = "third"\nproperty = "pm_10"\nwhen = "value > 1"\n'
    )

    found = faults(tmp_path, text)

    assert (
        'town.toml: rules[2].property = "pm_10": no such property; did you mean pm10?'
        in found
    )
    assert "town.toml: rules[1].name: is missing" in found
    assert "town.toml: rules[0].when = 5: must be text, in quotes" in found
    assert len(found) == 4, found  # no complaint that rules[0] has no `when`


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        (
            "STREAMPROC_OUTPUT__FLUSH_AGE",
            "1 minute",
            (
                'STREAMPROC_OUTPUT__FLUSH_AGE: output.flush_age = "1 minute": not a duration; '
                "write 250ms, 30s, 1m, 1h30m or 2d, in quotes"
            ),
        ),
        (
            "STREAMPROC_OUTPUT__ROOOT",
            "x",
            'STREAMPROC_OUTPUT__ROOOT: output.rooot = "x": unknown key; did you mean root?',
        ),
        (
            "STREAMPROC_OUTPT__ROOT",
            "x",
            "STREAMPROC_OUTPT__ROOT: unknown section; did you mean output?",
        ),
        (
            "STREAMPROC_RULES",
            "[{",
            "STREAMPROC_RULES: not JSON; lists and tables are written as JSON",
        ),
        (
            "STREAMPROC_RULES",
            '[{"name": "r", "property": "pm10"}]',
            "STREAMPROC_RULES: rules[0]: needs when, or no_data, or both",
        ),
        (
            "STREAMPROC_OUTPUT__LEVEL",
            "three",
            'STREAMPROC_OUTPUT__LEVEL: output.level = "three": must be a whole number',
        ),
        (
            "STREAMPROC_SECRETS_DIR",
            "nowhere-at-all",
            "STREAMPROC_SECRETS_DIR: nowhere-at-all: no such folder",
        ),
    ],
    ids=["duration", "key", "section", "json", "between", "number", "folder"],
)
def test_a_fault_of_the_environment_names_its_variable(
    tmp_path: Path, variable: str, value: str, expected: str
) -> None:
    assert faults(tmp_path, LEAST, {variable: value}) == (expected,)


def test_a_fault_of_the_command_line_says_so(tmp_path: Path) -> None:
    assert faults(tmp_path, LEAST, None, {"output.root": ""}) == (
        'command line: output.root = "": is not a folder\'s name',
    )


def test_an_empty_secret_is_a_fault_of_its_place(tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("\n")
    text = '[source]\nprotocol = "sasl_ssl"\nusername = "u"\npassword_file = "pw"\n'

    assert faults(tmp_path, text + LEAST) == (
        'town.toml: source.password_file = "pw": empty',
    )


def test_no_fault_shows_a_secret(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    folder.mkdir()
    (folder / "STREAMPROC_SOURCE__PASSWORD").write_text("geheim")
    (folder / "STREAMPROC_REGISTRY__PASSWORD").write_text("geheim")
    env = {
        "STREAMPROC_SECRETS_DIR": str(folder),
        "STREAMPROC_SOURCE__KEY_PASSWORD": "geheim",
    }

    text = '[source]\npassword = ["geheim"]\npassword_file = "x"\n' + LEAST

    found = "\n".join(faults(tmp_path, text, env))
    assert found
    assert "geheim" not in found


def test_every_fault_of_a_device_list_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "city,device,intervall,scale\nrazlog,a,,x\nrazlig,b,,\nrazlog,,,\nrazlog,c,,\nrazlog,c,,\n"
    )

    found = faults(tmp_path, 'devices_file = "list.csv"\n' + LEAST)

    assert found == (
        "list.csv: line 1: unknown column 'intervall'; did you mean interval?",
        'list.csv: line 2: scale = "x": must be a number',
        'list.csv: line 3: city = "razlig": no such city; did you mean razlog?',
        "list.csv: line 4: device: is missing",
        'list.csv: line 6: device = "c": is listed twice for its city',
    )


def test_a_hopeless_device_list_does_not_bury_the_rest(tmp_path: Path) -> None:
    rows = "".join(f"nowhere,d{i}\n" for i in range(50))
    (tmp_path / "list.csv").write_text("city,device\n" + rows)

    found = faults(tmp_path, 'devices_file = "list.csv"\n[log]\nlevel = "x"\n' + LEAST)

    assert len(found) == 22
    assert "list.csv: … and 30 more faults" in found

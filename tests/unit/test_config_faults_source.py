"""Wrong clusters, formats, outputs and files, and what the operator reads; never a secret."""

from pathlib import Path

import pytest

from tests.support.configs import CHIRPSTACK, LEAST, PACKED, faults

WRONG: dict[str, tuple[str, list[str]]] = {
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
        '[output]\nroot = "s3://Bucket_/prefix"\n' + LEAST,
        [
            ('town.toml: output.root = "s3://Bucket_/prefix": \'Bucket_\' is no bucket: 3 to '
            "63 of a-z, 0-9, dot and hyphen, a letter or digit at both ends")
        ],
    ),
    "prefix": (
        '[output]\nroot = "s3://bucket/../x"\n' + LEAST,
        [
            ('town.toml: output.root = "s3://bucket/../x": \'../x\' is no prefix: names of '
            "letters, digits, dot, _, = and -")
        ],
    ),
    "another kind of store": (
        '[output]\nroot = "gs://bucket/x"\n' + LEAST,
        [
            ('town.toml: output.root = "gs://bucket/x": is neither a folder nor '
            "s3://bucket/prefix")
        ],
    ),
    "a bucket over plain http": (
        '[output]\nroot = "s3://bucket"\n[s3]\nendpoint = "http://s3.example"\n' + LEAST,
        [
            ('town.toml: s3.endpoint = "http://s3.example": is not encrypted; use https, '
            "or allow_plaintext = true on a network you trust")
        ],
    ),
    "a key without its secret": (
        '[output]\nroot = "s3://bucket"\n[s3]\naccess_key_id = "AK"\n' + LEAST,
        [
            ("town.toml: s3.secret_access_key_file: id and secret of a key belong "
            "together")
        ],
    ),
    "a secret in the file": (
        '[output]\nroot = "s3://bucket"\n[s3]\naccess_key_id = "AK"\n'
        'secret_access_key = "geheim"\n' + LEAST,
        [
            ("town.toml: s3.secret_access_key = ***: a secret does not belong in the file; name "
            "a file with secret_access_key_file, or set STREAMPROC_S3__SECRET_ACCESS_KEY"),
            ("town.toml: s3.secret_access_key_file: id and secret of a key belong "
            "together"),
        ],
    ),
    "a secret in the endpoint": (
        '[output]\nroot = "s3://bucket"\n[s3]\nendpoint = "https://k:geheim@s3.example"\n'
        + LEAST,
        ["town.toml: s3.endpoint: a secret does not belong in a URL"],
    ),
    "an endpoint with a path": (
        '[output]\nroot = "s3://bucket"\n[s3]\nendpoint = "https://s3.example/x"\n'
        + LEAST,
        [
            ('town.toml: s3.endpoint = "https://s3.example/x": must end with its host '
            "and port")
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

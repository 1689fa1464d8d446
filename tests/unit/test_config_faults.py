"""Wrong files and values, and what the operator reads: each message is part of the product."""

from pathlib import Path

import pytest

from streamproc.config import load
from streamproc.errors import ConfigError
from tests.support.configs import DESIGN, LEAST, faults

CITY = '[cities.razlog]\ntimezone = "Europe/Sofia"\n'

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
        '[source]\nsession_timeout = "6500ms"\n' + LEAST,
        ['town.toml: source.session_timeout = "6500ms": must be whole seconds'],
    ),
    "start without zone": (
        '[source]\nstart = "2026-03-01T00:00:00"\n' + LEAST,
        [
            ('town.toml: source.start = "2026-03-01T00:00:00": a time without a zone; '
            "end it with Z or an offset such as +02:00")
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

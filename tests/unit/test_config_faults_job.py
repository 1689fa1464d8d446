"""Wrong towns, windows, rules and devices, and what the operator reads."""

from pathlib import Path

import pytest

from tests.support.configs import LEAST, faults

RULE = '[[rules]]\nname = "r"\nproperty = "pm10"\n'
SHORT = "must be 1 to 32 of a-z, 0-9 and hyphen"

WRONG: dict[str, tuple[str, list[str]]] = {
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
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_file_is_refused_with_its_message(tmp_path: Path, name: str) -> None:
    text, expected = WRONG[name]

    assert list(faults(tmp_path, text)) == expected


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

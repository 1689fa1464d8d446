from collections import Counter
from dataclasses import replace

from streamproc.simulate.towns import TOWNS, towns
from streamproc.simulate.traffic import TrafficOptions, traffic

OPTIONS = TrafficOptions(
    devices=70, rate=700.0, duration_us=30_000_000, seed=7, bad=0.01
)


def test_the_same_seed_gives_the_same_messages() -> None:
    assert list(traffic(OPTIONS)) == list(traffic(OPTIONS))


def test_another_seed_gives_other_messages() -> None:
    assert list(traffic(OPTIONS)) != list(traffic(replace(OPTIONS, seed=8)))


def test_messages_leave_in_order_of_their_sending() -> None:
    times = [message.send_us for message in traffic(OPTIONS)]

    assert times == sorted(times)


def test_the_rate_and_the_towns_are_those_asked_for() -> None:
    messages = list(traffic(OPTIONS))

    assert abs(len(messages) / 30 - 700) < 30
    assert set(Counter(m.city for m in messages)) == {town.slug for town in TOWNS}


def test_there_is_disorder_duplication_damage_and_a_clock_ahead() -> None:
    messages = list(traffic(replace(OPTIONS, duration_us=120_000_000)))
    pairs = Counter((m.device, m.event_us) for m in messages)
    events = [m.event_us for m in messages]

    assert events != sorted(events)
    assert max(pairs.values()) > 1
    assert {m.fault for m in messages} > {None}
    assert any(m.future for m in messages)


def test_in_order_and_sound_when_asked_to_be() -> None:
    calm = replace(OPTIONS, disorder_us=0, bad=0.0)
    first_seen: dict[tuple[str, int], int] = {}
    for message in traffic(calm):
        assert message.fault is None
        first_seen.setdefault((message.device, message.event_us), message.send_us)

    delays = [sent - event for (_, event), sent in first_seen.items()]
    assert min(abs(delay) for delay in delays) == 0


def test_values_stay_within_the_bounds_of_their_signal() -> None:
    bounds = {
        (town.slug, signal.property): (signal.low, signal.high)
        for town in TOWNS
        for kind in town.kinds
        for signal in kind.signals
    }
    for message in traffic(OPTIONS):
        for name, value in message.values:
            low, high = bounds[message.city, name]
            assert low <= value <= high


def test_more_than_seven_towns_are_numbered() -> None:
    slugs = [town.slug for town in towns(9)]

    assert slugs[7:] == ["fundao-2", "ange-2"]
    assert len(set(slugs)) == 9

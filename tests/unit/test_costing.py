"""What windows cost: which are measured, and on what."""

from streamproc.app.costing import Traffic, WindowCost, window_costs
from streamproc.core.definition import WindowSpec

MINUTE_US = 60_000_000
FEW = Traffic(series=50, interval_us=MINUTE_US // 10, readings=40_000)
PLAIN = WindowSpec("1m", MINUTE_US, MINUTE_US, 0)
FULL = WindowSpec("5m", 5 * MINUTE_US, 5 * MINUTE_US, 0, (0.5, 0.9))


def measured(*specs: WindowSpec) -> list[WindowCost]:
    return list(window_costs(specs, FEW, rounds=1))


def test_each_window_is_added_to_those_before_it_without_and_with_quantiles() -> None:
    found = measured(FULL, PLAIN)
    assert [(cost.windows, cost.quantiles) for cost in found] == [
        (("5m",), False),
        (("5m",), True),
        (("5m", "1m"), False),
        (("5m", "1m"), True),
    ]
    assert all(0 < cost.ns_per_reading < 1e6 for cost in found)


def test_what_has_no_quantiles_is_measured_once() -> None:
    assert [cost.quantiles for cost in measured(PLAIN)] == [False]


def test_quantiles_and_further_windows_take_memory() -> None:
    alone, with_quantiles, _, both = (
        cost.bytes_per_series for cost in measured(FULL, PLAIN)
    )
    assert alone < with_quantiles < both

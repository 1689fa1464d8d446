"""Fair shares: the rule against a slow twin, and what it promises."""

from collections.abc import Mapping

from hypothesis import given
from hypothesis import strategies as st

from streamproc.core.admission import (
    GREED,
    in_turn,
    next_round,
    quanta,
    served,
    too_greedy,
)

CITIES = ("ange", "dodoni", "razlog")
weights = st.fixed_dictionaries({city: st.integers(1, 1000) for city in CITIES})
credits_of = st.fixed_dictionaries(
    {city: st.integers(-(10**7), 1000) for city in CITIES}
)
QUANTUM = 1000


def slow_rounds(
    credit: Mapping[str, int], given_: Mapping[str, int], cities: frozenset[str]
) -> dict[str, int]:
    """Give everybody a round, again and again, until one of these may be read."""
    found = dict(credit)
    while True:
        for city, more in given_.items():
            found[city] = min(found[city] + more, more)
        if any(found[city] > 0 for city in cities):
            return found


@given(
    credits_of,
    st.fixed_dictionaries({city: st.integers(100, 1000) for city in CITIES}),
    st.sets(st.sampled_from(CITIES), min_size=1),
)
def test_rounds_passed_at_once_are_rounds_one_by_one(
    credit: dict[str, int], given_: dict[str, int], cities: set[str]
) -> None:
    few = {city: max(value, -5000) for city, value in credit.items()}
    waiting = frozenset(cities)
    assert next_round(few, given_, waiting) == slow_rounds(few, given_, waiting)


class Queue:
    """Cities with endless records, read in batches as the rule says."""

    def __init__(self, weights_: Mapping[str, int]) -> None:
        self.given = quanta(weights_, QUANTUM)
        self.credit: dict[str, int] = dict(self.given)
        self.total = dict.fromkeys(weights_, 0)

    def read(self, waiting: frozenset[str], size: int) -> str:
        """Serve the first of those in turn, by name: the worst order there is."""
        turn = in_turn(self.credit, waiting)
        if not turn:
            self.credit = next_round(self.credit, self.given, waiting)
            turn = in_turn(self.credit, waiting)
        city = min(turn)
        self.credit = served(self.credit, city, size)
        self.total[city] += size
        return city


@given(weights, st.lists(st.integers(1, 3000), min_size=1, max_size=300))
def test_cities_that_all_wait_are_served_by_weight(
    weights_: dict[str, int], sizes: list[int]
) -> None:
    """The difference never exceeds a round and a batch of each, however long it lasts."""
    queue = Queue(weights_)
    for size in sizes:
        queue.read(frozenset(CITIES), size)
    shares = {c: queue.total[c] / queue.given[c] for c in CITIES}
    for one in CITIES:
        for other in CITIES:
            bound = 2 + 3000 / queue.given[one] + 3000 / queue.given[other]
            assert abs(shares[one] - shares[other]) <= bound


@given(st.integers(1, 200), st.integers(1, 3000))
def test_a_city_that_comes_back_waits_for_a_round_at_most_whatever_others_have_had(
    batches: int, size: int
) -> None:
    queue = Queue(dict.fromkeys(CITIES, 1))
    for _ in range(batches):
        queue.read(frozenset({"ange"}), size)
    before = queue.total["ange"]
    waits = 0
    while queue.read(frozenset({"ange", "razlog"}), size) != "razlog":
        waits += 1
    assert queue.total["ange"] - before <= QUANTUM + size
    assert waits <= 1 + QUANTUM // size


def test_a_lone_city_is_never_kept_waiting() -> None:
    queue = Queue({"razlog": 1, "ange": 1})
    assert {queue.read(frozenset({"razlog"}), 10**9) for _ in range(50)} == {"razlog"}


@given(
    st.fixed_dictionaries({city: st.integers(0, 10_000) for city in CITIES}), weights
)
def test_no_city_may_take_what_is_left_for_the_others(
    held: dict[str, int], weights_: dict[str, int]
) -> None:
    bound, most = 10_000, max(weights_.values())
    free = max(0, bound - sum(held.values()))
    expected = {c for c in CITIES if held[c] > GREED * free * weights_[c] / most}
    assert too_greedy(held, weights_, bound) == expected


def test_a_lone_city_gets_three_quarters_and_leaves_a_quarter() -> None:
    weights_ = {"razlog": 1, "ange": 1}
    assert not too_greedy({"razlog": 750}, weights_, 1000)
    assert too_greedy({"razlog": 751}, weights_, 1000) == {"razlog"}
    assert too_greedy({"razlog": 751, "ange": 100}, weights_, 1000) == {"razlog"}

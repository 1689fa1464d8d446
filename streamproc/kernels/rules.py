"""Alert rules, reading by reading: what becomes of every cell, and in which order.

A *cell* is one (rule, series); the cells of series s are `first[s] .. first[s + 1]`, in
rule order. It carries two independent episodes: the rule's `when` (on readings or on
windows) and its `no_data`.

Deadlines. A pending `for` and a series that may fall silent are due at a known event time.
Each waits as a node in its city's heap (`kernels.heap`), so a row costs one comparison with
the root, and a cell is looked at only when it may be due:
scanning all cells whenever the earliest deadline passes is quadratic where 100,000 devices
have as many different deadlines. A node's key is a lower bound: readings do not move it, a
node that comes up too early goes back with the true time. Node 2c is the `for` of cell c,
node 2c + 1 its `no_data`.
"""

from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from streamproc.kernels._jit import kernel
from streamproc.kernels.heap import NO_NODE, pop, push

I1 = npt.NDArray[np.int8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]
U1 = npt.NDArray[np.uint8]
B1 = npt.NDArray[np.bool_]
Table = npt.NDArray[np.void]

NEVER: Final = -(2**63)
"""As `last_seen`: not seen yet. As `silent_since`: not silent."""

FAR: Final = 2**63 - 1
"""A deadline that does not exist."""

OK: Final = 0
PENDING: Final = 1
FIRING: Final = 2

WHEN: Final = 1
CLEAR: Final = 2

CELL: Final = np.dtype(
    [
        ("since_us", np.int64),
        ("trigger", np.int64),
        ("value", np.float64),
        ("last_seen", np.int64),
        ("silent_since", np.int64),
        ("rule", np.int64),
        ("series", np.int64),
        ("city", np.int64),
        ("nth", np.int32),
        ("state", np.int8),
        ("by_timer", np.bool_),
    ],
    align=True,
)
"""One (rule, series).

since_us: of a reading rule, event time of the first true row; of a window rule, how much
window time the condition has held. trigger: offset of that row, or start of the firing
window. nth: how many earlier episodes the same offset has opened. value: of the newest
valid reading while pending. last_seen: highest accepted event time. silent_since: the
`last_seen` the open `no_data` episode began with. by_timer: a timer opened the episode.
"""

RULE: Final = np.dtype(
    [
        ("for_us", np.int64),
        ("no_data_us", np.int64),
        ("every_us", np.int64),
        ("on_readings", np.bool_),
        ("window", np.int32),
    ],
    align=True,
)
"""One rule. no_data_us: negative for none. window: index of its window, -1 for none."""

EVENT: Final = np.dtype(
    [
        ("row", np.int64),
        ("phase", np.int8),
        ("lane", np.int8),
        ("transition", np.int8),
        ("early", np.bool_),
        ("cell", np.int64),
        ("event_us", np.int64),
        ("trigger", np.int64),
        ("nth", np.int32),
        ("value", np.float64),
    ],
    align=True,
)
"""One transition. Order of one row: phase 0 `no_data` cleared, 1 the reading, 2 deadlines."""


class State(NamedTuple):
    """What the kernels change: `first` int64[series + 1], `roots` int64[cities].

    cells: `CELL`[n]; nodes: `NODE`[2n]; rules: `RULE`[rules], never changed.
    """

    first: I8
    cells: Table
    nodes: Table
    roots: I8
    rules: Table


class Rows(NamedTuple):
    """Accepted readings in order, one entry each; see `core.series.FoldedRows`."""

    series: I4
    city: I4
    event_us: I8
    offset: I8
    value: F8
    valid: B1
    watermark_us: I8


class Closed(NamedTuple):
    """Closed windows that hold data, in order; see `core.series.ClosedWindows`."""

    series: I4
    start_us: I8
    end_us: I8


READING_LANE: Final = 0
WINDOW_LANE: Final = 1
NO_DATA_LANE: Final = 2


# --- deadlines ------------------------------------------------------------------------


@kernel
def _due(state: State, node: int) -> int:
    """Return the true deadline behind `node`, `FAR` if there is none any more."""
    cell = state.cells[node >> 1]
    rule = state.rules[cell["rule"]]
    due = FAR
    if node & 1 == 0:
        if cell["state"] == PENDING and rule["on_readings"]:
            due = cell["since_us"] + rule["for_us"]
    elif cell["last_seen"] != NEVER and cell["silent_since"] == NEVER:
        due = cell["last_seen"] + rule["no_data_us"]
    return due


@kernel
def deadline(state: State, city: int) -> int:
    """Return the earliest true deadline of `city`, `FAR` if there is none.

    Nodes that came up too early are put right on the way; no answer depends on it.
    """
    nodes, roots = state.nodes, state.roots
    while roots[city] != NO_NODE:
        root = roots[city]
        due = _due(state, root)
        if due == nodes[root]["key"]:
            return due
        roots[city] = pop(nodes, root)
        if due != FAR:
            push(nodes, roots, city, root, due)
    return FAR


@kernel
def enqueue_all(state: State) -> None:
    """Let every deadline there is wait in its city's heap (after a restore)."""
    for node in range(2 * state.cells.size):
        due = _due(state, node)
        if due != FAR:
            push(state.nodes, state.roots, state.cells[node >> 1]["city"], node, due)


# --- transitions ----------------------------------------------------------------------


@kernel
def _fire(state: State, node: int, due: int, row: int, event: np.void) -> None:
    """Open the episode whose deadline `due` has come, and write it to `event`."""
    cell = state.cells[node >> 1]
    event["row"] = row
    event["phase"] = 2
    event["transition"] = 0
    event["cell"] = node >> 1
    event["event_us"] = due
    if node & 1 == 1:
        cell["silent_since"] = cell["last_seen"]
        event["lane"] = NO_DATA_LANE
        event["early"] = False
        event["trigger"] = cell["last_seen"]
        event["nth"] = 0
        event["value"] = np.nan
    else:
        cell["state"] = FIRING
        cell["by_timer"] = row < 0
        event["lane"] = READING_LANE
        event["early"] = row >= 0
        event["trigger"] = cell["trigger"]
        event["nth"] = cell["nth"]
        event["value"] = cell["value"]


@kernel
def expire(
    state: State, city: int, until_us: int, row: int, events: Table, count: int
) -> int:
    """Open every episode of `city` that is due at `until_us`; return the new count.

    `row` is negative for a timer. Stops where `events` is full: the caller makes room and
    calls again.
    """
    nodes, roots = state.nodes, state.roots
    while count < events.size and roots[city] != NO_NODE:
        root = roots[city]
        if nodes[root]["key"] > until_us:
            break
        roots[city] = pop(nodes, root)
        due = _due(state, root)
        if due <= until_us:
            _fire(state, root, due, row, events[count])
            count += 1
        elif due != FAR:
            push(nodes, roots, city, root, due)
    return count


@kernel
def expire_cells(state: State, chosen: I8, until_us: int, events: Table) -> int:
    """As `expire` by a timer, for the cells `chosen` alone; return the count.

    `events` holds 2 per cell. Nodes of what fired stay behind and are dropped when they
    come up.
    """
    count = 0
    for index in range(chosen.size):
        for node in range(2 * chosen[index], 2 * chosen[index] + 2):
            due = _due(state, node)
            if due <= until_us:
                _fire(state, node, due, -1, events[count])
                count += 1
    return count


@kernel
def _seen(state: State, index: int, rows: Rows, row: int, event: np.void) -> int:
    """Note an accepted reading for `no_data`; return 1 if it ended an episode."""
    cell = state.cells[index]
    event_us = rows.event_us[row]
    if event_us <= cell["last_seen"]:
        return 0
    cell["last_seen"] = event_us
    due = event_us + state.rules[cell["rule"]]["no_data_us"]
    since = cell["silent_since"]
    if since != NEVER:
        # A backlog sent after an outage is overdue itself: the silence goes on until
        # readings are recent again, instead of two transitions for each of them.
        if due <= rows.watermark_us[row]:
            return 0
        cell["silent_since"] = NEVER
        event["row"] = row
        event["phase"] = 0
        event["lane"] = NO_DATA_LANE
        event["transition"] = 1
        event["early"] = False
        event["cell"] = index
        event["event_us"] = event_us
        event["trigger"] = since
        event["nth"] = 0
        event["value"] = np.nan
    push(state.nodes, state.roots, cell["city"], 2 * index + 1, due)
    return 0 if since == NEVER else 1


@kernel
def _judge(
    state: State, index: int, rows: Rows, row: int, truth: int, event: np.void
) -> int:
    """Let a valid reading change a reading rule's episode.

    Returns 1 if the episode was opened or ended; one reading never does both.
    """
    cell = state.cells[index]
    if cell["state"] == FIRING:
        if truth & CLEAR == 0:
            return 0
        cell["state"] = OK
        event["transition"] = 1
        event["early"] = not cell["by_timer"]
    elif truth & WHEN == 0:
        cell["state"] = OK
        return 0
    else:
        cell["value"] = rows.value[row]
        if cell["state"] == PENDING:
            return 0
        # One record may hold several readings of a series and open several episodes.
        cell["nth"] = cell["nth"] + 1 if cell["trigger"] == rows.offset[row] else 0
        cell["trigger"] = rows.offset[row]
        cell["since_us"] = rows.event_us[row]
        cell["by_timer"] = False
        for_us = state.rules[cell["rule"]]["for_us"]
        if for_us > 0:
            cell["state"] = PENDING
            push(
                state.nodes,
                state.roots,
                cell["city"],
                2 * index,
                cell["since_us"] + for_us,
            )
            return 0
        cell["state"] = FIRING
        event["transition"] = 0
        event["early"] = True
    event["row"] = row
    event["phase"] = 1
    event["lane"] = READING_LANE
    event["cell"] = index
    event["event_us"] = rows.event_us[row]
    event["trigger"] = cell["trigger"]
    event["nth"] = cell["nth"]
    event["value"] = rows.value[row]
    return 1


@kernel
def judge_rows(
    state: State, rows: Rows, touched: I8, truth: U1, cursor: I8, events: Table
) -> int:
    """Judge readings in order; return how many events were written.

    `touched` are the ascending rows whose series has cells, `truth` uint8[rules, touched]
    with bits `WHEN` and `CLEAR`, 0 where the rule is not on that row's property.
    `cursor` is int64[2]: row, index into `touched`. It is moved on; at row n all is done,
    before it `events` was full: call again.
    `events` has room for 2 per cell of any one series at least.
    """
    series, watermark_us = rows.series, rows.watermark_us
    count = 0
    while cursor[0] < series.size:
        row = cursor[0]
        city = int(rows.city[row])  # one type for every call: one compilation
        if cursor[1] < touched.size and touched[cursor[1]] == row:
            which = cursor[1]
            low = state.first[series[row]]
            high = state.first[series[row] + 1]
            if count + 2 * (high - low) > events.size:
                return count
            for index in range(low, high):
                if state.rules[state.cells[index]["rule"]]["no_data_us"] >= 0:
                    count += _seen(state, index, rows, row, events[count])
            for index in range(low, high):
                rule = state.cells[index]["rule"]
                if rows.valid[row] and state.rules[rule]["on_readings"]:
                    bits = truth[rule, which]
                    count += _judge(state, index, rows, row, bits, events[count])
            cursor[1] += 1
        root = state.roots[city]
        if root != NO_NODE and state.nodes[root]["key"] <= watermark_us[row]:
            count = expire(state, city, watermark_us[row], row, events, count)
            root = state.roots[city]
            if root != NO_NODE and state.nodes[root]["key"] <= watermark_us[row]:
                return count
        cursor[0] += 1
    return count


@kernel
def look_again(state: State, series: I4, chosen: I8, stirred: B1) -> None:
    """Set `stirred` (bool by series) for the series at rows `chosen`.

    True where a reading rule's cell of it is pending or firing.
    """
    for row in chosen:
        one = series[row]
        found = False
        for index in range(state.first[one], state.first[one + 1]):
            cell = state.cells[index]
            on_readings = state.rules[cell["rule"]]["on_readings"]
            found = found or (on_readings and cell["state"] != OK)
        stirred[one] = found


@kernel
def judge_windows(
    state: State, window: int, closed: Closed, truth: U1, value: F8, events: Table
) -> int:
    """Judge closed windows of spec `window` in order; return how many events were written.

    `truth` is uint8[rules, n] as in `judge_rows`, `value` float64[rules, n] what a
    transition reports. `events` has room for one per cell of each window.
    """
    count = 0
    for row in range(closed.series.size):
        series = closed.series[row]
        for index in range(state.first[series], state.first[series + 1]):
            cell = state.cells[index]
            rule = state.rules[cell["rule"]]
            if rule["window"] != window:
                continue
            bits = truth[cell["rule"], row]
            event = events[count]
            if cell["state"] == FIRING:
                if bits & CLEAR == 0:
                    continue
                cell["state"] = OK
                cell["since_us"] = 0
                event["transition"] = 1
            elif bits & WHEN == 0:
                cell["state"] = OK
                cell["since_us"] = 0
                continue
            else:
                cell["since_us"] += rule["every_us"]
                if cell["since_us"] < rule["for_us"]:
                    cell["state"] = PENDING
                    continue
                cell["state"] = FIRING
                cell["trigger"] = closed.start_us[row]
                event["transition"] = 0
            event["row"] = row
            event["phase"] = 1
            event["lane"] = WINDOW_LANE
            event["early"] = False
            event["cell"] = index
            event["event_us"] = closed.end_us[row]
            event["trigger"] = cell["trigger"]
            event["nth"] = 0
            event["value"] = value[cell["rule"], row]
            count += 1
    return count

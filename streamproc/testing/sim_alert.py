"""An alert for the simulation: all that matters is its id."""

from streamproc.core.values import AlertTransition


def alert_of(source: str, offset: int) -> AlertTransition:
    """Return the alert that the record at `offset` of `source` opens."""
    return AlertTransition(
        alert_id=str(offset),
        transition=0,
        state="firing",
        rule="r",
        rule_version="v",
        severity="warning",
        city="even",
        device="d",
        property="p",
        window=None,
        event_us=offset,
        value=None,
        source=source,
        offset=offset,
        early=False,
    )

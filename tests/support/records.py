"""Small values that records hold."""

from streamproc.core.values import AlertTransition


def an_alert(alert_id: str = "a") -> AlertTransition:
    return AlertTransition(
        alert_id=alert_id,
        transition=0,
        state="firing",
        rule="r",
        rule_version="v",
        severity="warning",
        city="razlog",
        device="d",
        property="pm10",
        window="1h",
        event_us=0,
        value=1.0,
        source="telemetry.razlog/0",
        offset=0,
        early=False,
    )

"""An oracle that shares no code with the product: plain Python, slow and obvious.

From the ledger of what a broker acknowledged and a few facts of the configuration it computes
what `readings/`, `aggregates/`, `late/`, `quarantine/` and `alerts/` must hold, and compares.
It reads the visible files, and the commit logs as JSON for what data alone cannot tell: which
timer decisions were taken, and which record a reading was committed with.

EXACTLY_ONCE.md 3.4 numbers what is checked: O1 to O7.
"""

"""Sans-IO: readings, windows, alerts, the processor and the commit protocol's decisions."""

"""streamproc: the telemetry stream processor that small towns run together."""

__version__ = "0.1.0"

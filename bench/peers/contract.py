"""The numbers of the two jobs: what programs, reference and generator have to agree on.

Knows nothing but Python, because it is imported in each peer's own environment.
"""

WINDOW_MS = 60_000
LATENESS_MS = 10_000
"""A window closes when its partition has seen an event time this far past its end."""

THRESHOLD = 40.003
"""A window's mean above it is an alert. No mean of values with one decimal equals it."""

PARTITIONS = 4
FRAME_BYTES = 5
"""Confluent's framing before the Avro datum: a zero and the schema's number."""

UC2_SCHEMA = """\
{"type": "record", "name": "ActivePowerRecord", "namespace": "titan.ccp.model.records",
 "fields": [
  {"name": "identifier", "type": "string"},
  {"name": "timestamp", "type": "long"},
  {"name": "valueInW", "type": "double"},
  {"name": "property", "type": "string"}]}
"""
"""Theodolite's record and one field more, always `power`: streamproc needs a property."""

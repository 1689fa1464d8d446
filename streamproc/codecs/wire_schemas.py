"""The project's own wire schemas. `schemas/` holds the same texts; a test compares."""

from typing import Final

READING_AVSC: Final = """\
{
  "type": "record",
  "name": "Reading",
  "namespace": "streamproc.wire",
  "doc": "One value of one property of one device at one event time.",
  "fields": [
    {"name": "device", "type": "string"},
    {"name": "property", "type": "string"},
    {"name": "time", "type": {"type": "long", "logicalType": "timestamp-micros"}},
    {"name": "value", "type": "double"},
    {"name": "unit", "type": ["null", "string"], "default": null, "doc": "UCUM; null: the property's canonical unit"},
    {"name": "quality", "type": ["null", "int"], "default": null, "doc": "-128 to 127, valid if positive; null: 1"}
  ]
}
"""

READING_PROTO: Final = """\
syntax = "proto3";

package streamproc.wire;

// One value of one property of one device at one event time.
message Reading {
  string device = 1;
  string property = 2;
  // Microseconds since 1970 UTC.
  int64 time_us = 3;
  // Optional, so that a message without a value is refused and not read as 0.
  optional double value = 4;
  // UCUM; absent: the property's canonical unit.
  optional string unit = 5;
  // -128 to 127, valid if positive; absent: 1.
  optional sint32 quality = 6;
}
"""

READING_JSON_SCHEMA: Final = """\
{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "title": "streamproc reading",
  "description": "One reading of a device, or many properties of a device at one time.",
  "type": "object",
  "properties": {
    "device": {"$ref": "#/$defs/name"},
    "property": {"$ref": "#/$defs/name"},
    "time": {
      "description": "RFC 3339 with zone, or milliseconds since 1970 UTC.",
      "anyOf": [
        {"type": "string", "pattern": "^\\\\d{4}-\\\\d\\\\d-\\\\d\\\\d[Tt ]\\\\d\\\\d:\\\\d\\\\d:\\\\d\\\\d(\\\\.\\\\d{1,9})?([Zz]|[+-]\\\\d\\\\d:\\\\d\\\\d)$"},
        {"type": "number"}
      ]
    },
    "value": {"type": "number"},
    "unit": {"description": "UCUM; absent: the property's canonical unit.", "type": ["string", "null"], "maxLength": 256},
    "values": {
      "type": "object",
      "minProperties": 1,
      "propertyNames": {"$ref": "#/$defs/name"},
      "additionalProperties": {"type": "number"}
    },
    "units": {
      "description": "Property to UCUM unit; absent: the canonical units.",
      "type": ["object", "null"],
      "additionalProperties": {"type": ["string", "null"], "maxLength": 256}
    },
    "quality": {"description": "Valid if positive; absent: 1.", "type": ["integer", "null"], "minimum": -128, "maximum": 127}
  },
  "required": ["device", "time"],
  "oneOf": [
    {"required": ["property", "value"], "not": {"anyOf": [{"required": ["values"]}, {"required": ["units"]}]}},
    {"required": ["values"], "not": {"anyOf": [{"required": ["property"]}, {"required": ["value"]}, {"required": ["unit"]}]}}
  ],
  "$defs": {
    "name": {"type": "string", "minLength": 1, "maxLength": 256, "pattern": "^[^\\\\u0000-\\\\u001f\\\\u007f]+$"}
  }
}
"""

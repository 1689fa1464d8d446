"""One decoder per topic, by the format its operator declared; never by the bytes."""

from typing import Literal

from streamproc.codecs.arrow_ipc import ArrowIpc
from streamproc.codecs.arrow_layout import ArrowOptions
from streamproc.codecs.avro import ConfluentAvro
from streamproc.codecs.chirpstack import ChirpStack
from streamproc.codecs.chirpstack_strict import ChirpStackOptions
from streamproc.codecs.json_flat import FlatJson
from streamproc.codecs.json_strict import JsonOptions
from streamproc.codecs.packed import Packed
from streamproc.codecs.packed_strict import PackedOptions
from streamproc.codecs.protobuf import ConfluentProtobuf
from streamproc.codecs.strict import FieldOptions
from streamproc.core.ports import Decoder

Format = Literal["json", "avro", "protobuf", "arrow", "packed", "chirpstack"]
Options = FieldOptions | PackedOptions | ChirpStackOptions


def make_decoder(
    format: Format,  # noqa: A002  (the configuration's word)
    options: Options | None = None,
) -> Decoder:
    """Return the decoder of a format.

    Args:
        format: what the topic's records are.
        options: `JsonOptions` for json, `FieldOptions` for avro and protobuf,
            `ArrowOptions` for arrow, `PackedOptions` for packed, `ChirpStackOptions` for
            chirpstack; None for the defaults, which the last two have not.

    Raises:
        TypeError: options of another format.
    """
    if format == "json" and (options is None or isinstance(options, JsonOptions)):
        return FlatJson(options)
    if format == "arrow" and (options is None or isinstance(options, ArrowOptions)):
        return ArrowIpc(options)
    if format == "packed" and isinstance(options, PackedOptions):
        return Packed(options)
    if format == "chirpstack" and isinstance(options, ChirpStackOptions):
        return ChirpStack(options)
    if options is None or type(options) is FieldOptions:
        if format == "avro":
            return ConfluentAvro(options)
        if format == "protobuf":
            return ConfluentProtobuf(options)
    message = f"{type(options).__name__} are not the options of {format}"
    raise TypeError(message)

"""How much an Arrow IPC stream holds once decompressed, found out before anything is.

Arrow allocates what a compressed buffer claims to hold; so the claims are added up first,
from the flatbuffers of the messages.
"""

import struct

import pyarrow as pa

from streamproc.codecs.strict import Refused
from streamproc.core.values import Reason

_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3


def content_bytes(buffer: pa.Buffer) -> int:
    """Return how many bytes the stream's bodies hold once decompressed."""
    reader = pa.ipc.MessageReader.open_stream(buffer)
    total = 0
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return total
        body = message.body
        total += _body_bytes(message.metadata.to_pybytes(), body)


def _body_bytes(metadata: bytes, body: pa.Buffer | None) -> int:
    if body is None:
        return 0
    root = struct.unpack_from("<I", metadata)[0]
    kind = field_at(metadata, root, 1)
    header = table_at(metadata, root, 2)
    if kind is None or header is None:
        return body.size
    if metadata[kind] == _DICTIONARY_BATCH:
        header = table_at(metadata, header, 1)
    elif metadata[kind] != _RECORD_BATCH:
        return body.size
    if header is None or field_at(metadata, header, 3) is None:
        return body.size
    buffers = table_at(metadata, header, 2)
    return 0 if buffers is None else _claimed_bytes(metadata, buffers, body)


def _claimed_bytes(metadata: bytes, buffers: int, body: pa.Buffer) -> int:
    """Add up what compressed buffers say they hold: int64 before each, -1 for plain."""
    view = memoryview(body)
    total = 0
    for k in range(struct.unpack_from("<I", metadata, buffers)[0]):
        offset, length = struct.unpack_from("<qq", metadata, buffers + 4 + 16 * k)
        if length:
            if not 0 <= offset <= len(view) - 8:
                raise Refused(Reason.MALFORMED, "a buffer lies outside its message")
            claimed = struct.unpack_from("<q", view, offset)[0]
            total += length if claimed < 0 else claimed
    return total


def field_at(data: bytes, table: int, index: int) -> int | None:
    """Return where a flatbuffer table keeps a field, None if it is absent."""
    layout = table - struct.unpack_from("<i", data, table)[0]
    place = 4 + 2 * index
    if layout < 0 or place >= struct.unpack_from("<H", data, layout)[0]:
        return None
    offset = struct.unpack_from("<H", data, layout + place)[0]
    return table + offset if offset else None


def table_at(data: bytes, table: int, index: int) -> int | None:
    """Return where the table or vector starts that a flatbuffer field refers to."""
    place = field_at(data, table, index)
    return None if place is None else place + struct.unpack_from("<I", data, place)[0]

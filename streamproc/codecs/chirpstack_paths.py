"""The options of ChirpStack's uplinks as `kernels.uplink_content` takes them: words in memory."""

from typing import Final

import numpy as np
import numpy.typing as npt

from streamproc.codecs.chirpstack_strict import ChirpStackOptions
from streamproc.codecs.columns import Sheet
from streamproc.codecs.strict import RECORD_BYTES_MAX
from streamproc.core.payloads import Payloads
from streamproc.kernels import bytes_sheet, json_parts
from streamproc.kernels import uplink_content as words

I8 = npt.NDArray[np.int64]

_WORD_BYTES: Final = 8
_NO_ITEM: Final = -1
_ITEM_DIGITS_MAX: Final = 9
_READINGS_EXPECTED: Final = 8


class Paths:
    """What is mapped, as a tree. `rules` is what kernels take; all else is its memory."""

    def __init__(self, options: ChirpStackOptions) -> None:
        self._options = options
        self._names = list(dict.fromkeys(options.properties.values()))
        self._properties = np.zeros((len(self._names), words.PROPERTY_WORDS), np.int64)
        self._states = self._known_states()
        # Every path, and whatever one begins with; the empty one is the root.
        self._numbers: dict[tuple[str, ...], int] = {(): 0}
        for path in options.properties:
            parts = tuple(path.split("."))
            for count in range(1, len(parts) + 1):
                self._numbers.setdefault(parts[:count], len(self._numbers))
        self._texts = Payloads.of([_bytes("".join(p[-1:])) for p in self._numbers])
        self._nodes = self._nodes_of_paths()
        self.rules = _rules(options)
        self.rules[words.PATHS] = self._nodes.ctypes.data
        bits = (4 * len(self._nodes)).bit_length()
        self._table = np.zeros(1 << bits, np.int64)
        self.rules[words.TABLE] = self._table.ctypes.data
        self.rules[words.TABLE_BITS] = bits
        for node in self._nodes[1:]:
            words.enter(self.rules.ctypes.data, node.ctypes.data, words.HASH)
            if node[words.ITEM] >= 0:
                words.enter(self.rules.ctypes.data, node.ctypes.data, words.ITEM)
        self.readings = min(len(self._names), _READINGS_EXPECTED)
        """How many readings an uplink may well have."""
        self._vocabulary: object = None

    def know_names(self, sheet: Sheet) -> None:
        """Give properties and their units the codes they have in the sheet's tables."""
        if self._vocabulary is sheet.vocabulary:
            return
        units = map(self._options.units.get, self._names)
        self._properties[:, words.CODE] = sheet.codes(
            bytes_sheet.PROPERTIES, self._names
        )
        self._properties[:, words.UNIT] = sheet.codes(bytes_sheet.UNITS, units)
        self._vocabulary = sheet.vocabulary

    def _known_states(self) -> I8:
        """Return the states, those of a property together, and note where they begin."""
        found = [self._states_of(name) for name in self._names]
        states = np.zeros((sum(map(len, found)), words.STATE_WORDS), np.int64)
        begin = 0
        for mapped, known in zip(self._properties, found, strict=True):
            size = begin * words.STATE_WORDS * _WORD_BYTES
            mapped[words.STATES] = states.ctypes.data + size
            mapped[words.STATE_COUNT] = len(known)
            for row, (text, value) in zip(states[begin:], known, strict=False):
                row[0] = len(text)
                padded = text.ljust(words.STATE_BYTES_MAX, b"\0")
                row[words.STATE_NAME : words.STATE_VALUE] = np.frombuffer(padded, "i8")
                row[words.STATE_VALUE] = np.float64(value).view(np.int64)
            begin += len(known)
        return states

    def _states_of(self, name: str) -> list[tuple[bytes, float]]:
        """Return the states that kernels may know: longer ones are for the strict path."""
        states = self._options.states.get(name, {}).items()
        found = [(_bytes(state), value) for state, value in states]
        return [one for one in found if len(one[0]) <= words.STATE_BYTES_MAX]

    def _nodes_of_paths(self) -> I8:
        nodes = np.zeros((len(self._numbers), words.NODE_WORDS), np.int64)
        for parts, number in self._numbers.items():
            node = nodes[number]
            size = self._texts.ends[number] - self._texts.starts[number]
            address = self._texts.data.ctypes.data + int(self._texts.starts[number])
            state, _ = words.key_hash(address, int(size))
            node[words.HASH] = np.uint64(state).view(np.int64)
            node[words.NAME], node[words.SIZE] = address, size
            node[words.ITEM] = _item("".join(parts[-1:]))
            name = self._options.properties.get(".".join(parts)) if parts else None
            if name is not None:
                mapped = self._properties[self._names.index(name)]
                node[words.PROPERTY] = mapped.ctypes.data
            node[words.PARENT] = nodes[self._numbers[parts[:-1]]].ctypes.data
        return nodes


def _bytes(text: str) -> bytes:
    return text.encode(errors="surrogatepass")


def _item(part: str) -> int:
    """Return which item of a list a part of a path names, if any."""
    short = part.isascii() and part.isdecimal() and len(part) <= _ITEM_DIGITS_MAX
    return int(part) if short and part == str(int(part)) else _NO_ITEM


def _rules(options: ChirpStackOptions) -> I8:
    # What `json_parts` may do with times without a zone and numbers in quotes: nothing.
    rules = np.zeros(words.RULES, np.int64)
    rules[json_parts.SIZE_MAX] = RECORD_BYTES_MAX
    rules[words.BOOLEANS] = options.booleans
    if options.unmapped == "quarantine":
        numbers = not options.booleans
        rules[words.UNMAPPED] = words.NUMBERS if numbers else words.NUMBERS_AND_BOOLEANS
    key = f'"{options.device}"'.encode()
    rules[words.DEVICE_KEY_SIZE] = len(key)
    rules[words.DEVICE_KEY : words.DEVICE_KEY_SIZE] = np.frombuffer(
        key.ljust(2 * _WORD_BYTES, b"\0"), "i8"
    )
    return rules

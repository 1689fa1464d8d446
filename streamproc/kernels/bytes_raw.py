"""Loads, stores and bit tricks on raw addresses, for kernels that read wire bytes.

Array arguments of helper kernels cost reference counting on every call (measured:
1180 → 150 ns per JSON row), so the scanners pass int64 addresses instead. Nothing here
checks a bound: **the caller does**, before every load. A load of 8 or 32 bytes at or
before `end` reaches beyond it, so buffers carry `PAD` readable bytes behind their last
value (`streamproc.core.payloads` sees to it).
"""

# ruff: noqa: ARG001, PLR2004  (numba fixes the parameters; a word has 8 bytes)

from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from streamproc.kernels._jit import inlined

U1 = npt.NDArray[np.uint8]
U2 = npt.NDArray[np.uint16]
U8 = npt.NDArray[np.uint64]
I1 = npt.NDArray[np.int8]
I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
F8 = npt.NDArray[np.float64]

U64: Final = np.uint64
int64 = cast("Callable[[Any], int]", np.int64)
"""To a signed word; typed as int because that is what kernels count and index with."""

PAD: Final = 64
LINE_BYTES: Final = 64
"""A cache line of the machines we know."""
BLOCK: Final = 32
_BLOCK: Final = ir.VectorType(ir.IntType(8), BLOCK)


def _pointer(context: Any, builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, context.get_value_type(kind).as_pointer())


def _loader(kind: Any) -> Any:
    @intrinsic
    def load(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            value = builder.load(_pointer(context, builder, args[0], kind))
            value.align = 1
            return value

        return kind(types.int64), generate

    return load


def _storer(kind: Any) -> Any:
    @intrinsic
    def store(typing_context: Any, address: Any, value: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = _pointer(context, builder, args[0], kind)
            builder.store(args[1], place).align = 1
            return context.get_dummy_value()

        return types.void(types.int64, kind), generate

    return store


load_u8: Callable[[int], int] = _loader(types.uint8)
load_i8: Callable[[int], int] = _loader(types.int8)
load_u16: Callable[[int], int] = _loader(types.uint16)
load_i16: Callable[[int], int] = _loader(types.int16)
load_u64: Callable[[int], np.uint64] = _loader(types.uint64)
load_i32: Callable[[int], int] = _loader(types.int32)
load_u32: Callable[[int], int] = _loader(types.uint32)
load_i64: Callable[[int], int] = _loader(types.int64)
load_f32: Callable[[int], float] = _loader(types.float32)
load_f64: Callable[[int], float] = _loader(types.float64)
store_u64: Callable[[int, np.uint64], None] = _storer(types.uint64)
store_i64: Callable[[int, int], None] = _storer(types.int64)
store_i32: Callable[[int, np.int32], None] = _storer(types.int32)
store_f64: Callable[[int, float], None] = _storer(types.float64)
store_i8: Callable[[int, np.int8], None] = _storer(types.int8)
store_u16: Callable[[int, np.uint16], None] = _storer(types.uint16)


@intrinsic
def _copy(typing_context: Any, target: Any, origin: Any, size: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        cgutils.raw_memcpy(  # type: ignore[no-untyped-call]  # numba has no types
            builder,
            _pointer(context, builder, args[0], types.uint8),
            _pointer(context, builder, args[1], types.uint8),
            args[2],
            1,
        )
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


@intrinsic
def _trailing_zeros(typing_context: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], cgutils.false_bit)

    return types.int64(types.uint64), generate


@intrinsic
def _swapped(typing_context: Any, word: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bswap(args[0])

    return types.uint64(types.uint64), generate


def _float_of(bits: Any, kind: Any) -> Any:
    @intrinsic
    def as_float(typing_context: Any, word: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return builder.bitcast(args[0], context.get_value_type(kind))

        return kind(bits), generate

    return as_float


@intrinsic
def _prefetch(typing_context: Any, address: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
            builder.module,
            ir.FunctionType(ir.VoidType(), [pointer, number, number, number]),
            "llvm.prefetch.p0",
        )
        # For writing, to stay in every cache, data.
        hints = [ir.Constant(number, hint) for hint in (1, 3, 1)]
        builder.call(function, [builder.inttoptr(args[0], pointer), *hints])
        return context.get_dummy_value()

    return types.void(types.int64), generate


prefetch = cast("Callable[[int], None]", _prefetch)
"""Fetch the cache line of an address soon to be written; any address will do."""


def _splat(byte: int) -> Any:
    return ir.Constant(_BLOCK, [byte] * BLOCK)


def _block(builder: Any, address: Any) -> Any:
    value = builder.load(builder.inttoptr(address, _BLOCK.as_pointer()))
    value.align = 1
    return value


def _mask(builder: Any, hits: Any) -> Any:
    """Return 32 truths as the low bits of a word, the first byte's lowest."""
    return builder.zext(builder.bitcast(hits, ir.IntType(BLOCK)), ir.IntType(64))


def _finder(*, below_space: bool) -> Any:
    @intrinsic
    def find(typing_context: Any, address: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            block = _block(builder, args[0])
            hits = builder.or_(
                builder.icmp_unsigned("==", block, _splat(34)),
                builder.icmp_unsigned("==", block, _splat(92)),
            )
            if below_space:
                # As signed bytes, whatever is beyond ASCII is below the space, too.
                hits = builder.or_(hits, builder.icmp_signed("<", block, _splat(32)))
            return _mask(builder, hits)

        return types.uint64(types.int64), generate

    return find


@intrinsic
def _unequal(typing_context: Any, left: Any, right: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pair = [_block(builder, address) for address in args]
        return _mask(builder, builder.icmp_unsigned("!=", *pair))

    return types.uint64(types.int64, types.int64), generate


string_ends: Callable[[int], np.uint64] = _finder(below_space=False)
"""Bit k is set where byte k of the `BLOCK` at an address is a quote or a backslash."""
string_stops: Callable[[int], np.uint64] = _finder(below_space=True)
"""The same, and where byte k is a control character or not ASCII."""
unequal = cast("Callable[[int, int], np.uint64]", _unequal)
"""Bit k is set where byte k of a `BLOCK` differs between two addresses."""
copy_bytes = cast("Callable[[int, int, int], None]", _copy)
swapped = cast("Callable[[np.uint64], np.uint64]", _swapped)
"""The word with its eight bytes in reverse order."""
double_of: Callable[[np.uint64], float] = _float_of(types.uint64, types.float64)
single_of: Callable[[np.uint32], float] = _float_of(types.uint32, types.float32)
"""The number that the bits stand for by IEEE 754."""
trailing_zeros = cast("Callable[[np.uint64], int]", _trailing_zeros)


@inlined
def low_bytes(word: np.uint64, count: int) -> np.uint64:
    """Return `word` with only its first `count` (0..8) bytes kept, little endian."""
    if count >= 8:
        return word
    return word & ((U64(1) << U64(8 * count)) - U64(1))

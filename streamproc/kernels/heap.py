"""Pairing heaps (Fredman et al., Algorithmica 1, 1986) of nodes that lie in one array.

Many heaps share the array, each known by its root in `roots`; a node is in one of them or
outside. Nodes are numbers the caller gives a meaning to; `key` orders them.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from streamproc.kernels._jit import kernel

I8 = npt.NDArray[np.int64]
Table = npt.NDArray[np.void]

NO_NODE: Final = -1
_OUTSIDE: Final = 0
_BEFORE: Final = 2
"""Added to `before`, so that a node of zeros waits in no heap and its memory is not touched."""

NODE: Final = np.dtype(
    [
        ("key", np.int64),
        ("child", np.int64),
        ("sibling", np.int64),
        ("before", np.int64),
    ],
    align=True,
)
"""One heap node; `before` is the left sibling or, of a first child, the parent, `_BEFORE` added."""


@kernel
def _meld(nodes: Table, one: int, two: int) -> int:
    """Make one heap of two roots (`NO_NODE`: empty) and return its root."""
    if one == NO_NODE:
        return two
    if two == NO_NODE:
        return one
    if nodes[two]["key"] < nodes[one]["key"]:
        one, two = two, one
    child = nodes[one]["child"]
    nodes[two]["sibling"] = child
    if child != NO_NODE:
        nodes[child]["before"] = two + _BEFORE
    nodes[one]["child"] = two
    nodes[two]["before"] = one + _BEFORE
    return one


@kernel
def pop(nodes: Table, root: int) -> int:
    """Take `root` out and return the new root: pairs left to right, then right to left."""
    child = nodes[root]["child"]
    nodes[root]["child"] = NO_NODE
    nodes[root]["before"] = _OUTSIDE
    done = NO_NODE
    while child != NO_NODE:
        other = nodes[child]["sibling"]
        rest = NO_NODE if other == NO_NODE else nodes[other]["sibling"]
        nodes[child]["sibling"] = NO_NODE
        if other != NO_NODE:
            nodes[other]["sibling"] = NO_NODE
        pair = _meld(nodes, child, other)
        nodes[pair]["sibling"] = done
        done = pair
        child = rest
    result = NO_NODE
    while done != NO_NODE:
        rest = nodes[done]["sibling"]
        nodes[done]["sibling"] = NO_NODE
        result = _meld(nodes, result, done)
        done = rest
    if result != NO_NODE:
        nodes[result]["before"] = NO_NODE + _BEFORE
    return result


@kernel
def push(nodes: Table, roots: I8, city: int, node: int, key: int) -> None:
    """Let `node` come up at `key` at the latest; it may wait already."""
    root = roots[city]
    if nodes[node]["before"] == _OUTSIDE:
        nodes[node]["child"] = NO_NODE
    elif key >= nodes[node]["key"]:
        return
    elif node == root:
        nodes[node]["key"] = key
        return
    else:
        before = nodes[node]["before"] - _BEFORE
        after = nodes[node]["sibling"]
        if nodes[before]["child"] == node:
            nodes[before]["child"] = after
        else:
            nodes[before]["sibling"] = after
        if after != NO_NODE:
            nodes[after]["before"] = before + _BEFORE
    nodes[node]["key"] = key
    nodes[node]["sibling"] = NO_NODE
    nodes[node]["before"] = NO_NODE + _BEFORE
    root = _meld(nodes, root, node)
    nodes[root]["before"] = NO_NODE + _BEFORE
    roots[city] = root

"""Performing what the protocol asks: store effects answered from a `Store`."""

from typing import Any, TypeVar

from streamproc.core.effects import (
    Create,
    Delete,
    Effect,
    List,
    Publish,
    Reached,
    Read,
    Replace,
    Settle,
    Stage,
    Steps,
)
from streamproc.core.ports import Failpoint, Store

T = TypeVar("T")


def run_steps(steps: Steps[T], store: Store, failpoint: Failpoint) -> T:
    """Answer every effect of `steps` and return their result; blocking."""
    answer: Any = None
    while True:
        try:
            effect = steps.send(answer)
        except StopIteration as done:
            result: T = done.value
            return result
        answer = _perform(effect, store, failpoint)


def _perform(  # noqa: PLR0911  (one arm per effect)
    effect: Effect, store: Store, failpoint: Failpoint
) -> Any:
    match effect:
        case Reached(name):
            return failpoint(name)
        case Create(path, data):
            return store.create(path, data)
        case Read(path):
            return store.read(path)
        case List(folder, after):
            return store.list(folder, after)
        case Stage(path, content):
            return store.stage(path, content)
        case Publish(staged, final, size, sha256):
            return store.publish(staged, final, size, sha256)
        case Settle():
            return store.settle()
        case Replace(path, data):
            return store.replace(path, data)
        case Delete(path):
            return store.delete(path)

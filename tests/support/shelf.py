"""A store of the simplest kind for the protocol's effects, and what plays them against it."""

from collections import Counter
from collections.abc import Callable
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
    Stage,
    Steps,
)
from streamproc.core.ports import Created, StoredFile
from tests.support.logs import FOLDER

T = TypeVar("T")
LOG = f"{FOLDER}/log"


def play(steps: Steps[T], answer: Callable[[Effect], Any]) -> tuple[T, list[Effect]]:
    """Run steps against `answer`; return their result and the effects asked for."""
    effects: list[Effect] = []
    fact: Any = None
    while True:
        try:
            effect = steps.send(fact)
        except StopIteration as done:
            return done.value, effects
        effects.append(effect)
        fact = answer(effect)


class Shelf:
    """A dict that answers effects, and counts them by kind in `asked`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.published: list[str] = []
        self.asked: Counter[str] = Counter()

    def __call__(self, effect: Effect) -> Any:
        if not isinstance(effect, Reached):
            self.asked[type(effect).__name__] += 1
        match effect:
            case Create(path, data):
                taken = path in self.files
                self.files.setdefault(path, data)
                return Created.EXISTS if taken else Created.CREATED
            case Read(path):
                return self.files.get(path)
            case List(folder, after):
                return [
                    StoredFile(path, len(data))
                    for path, data in sorted(self.files.items())
                    if path.startswith(f"{folder}/") and path > after
                ]
            case Stage(path, bytes(data)):
                self.files[path] = data
                return len(data)
            case Publish(_, final):
                self.published.append(final)
            case Replace(path, data):
                self.files[path] = data
            case Delete(path):
                self.files.pop(path, None)
        return None

    def records(self) -> list[str]:
        return [name for name in sorted(self.files) if name.startswith(f"{LOG}/")]

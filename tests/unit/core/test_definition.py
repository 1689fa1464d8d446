"""What a definition says of itself."""

from dataclasses import replace

from streamproc.core.definition import Definition, DeviceSpec
from tests.support.tables import DEFINITION


def test_a_digest_is_computed_once_and_depends_on_what_is_said_alone() -> None:
    """Every file of every commit carries it, and of 100,000 devices it takes more than a second."""
    more = replace(DEFINITION, devices=(DeviceSpec("razlog", "d1"),))
    again = Definition.from_canonical(DEFINITION.canonical())

    assert DEFINITION.sha256() is DEFINITION.sha256()
    assert again == DEFINITION
    assert again.sha256() == DEFINITION.sha256() != more.sha256()

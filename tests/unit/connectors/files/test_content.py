"""Opening files: what a failed attempt leaves behind."""

from streamproc.connectors.files.content import Bounded


def test_closing_what_was_never_opened_is_quiet() -> None:
    """Python 3.13 prints what a finalizer raises, and io's finalizer closes."""
    never_opened = Bounded.__new__(Bounded)

    never_opened.close()

    assert never_opened.closed

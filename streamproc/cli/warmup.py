"""`streamproc warmup`: compile every kernel into numba's cache."""

from typing import Annotated

import typer

from streamproc.app.warmup import warm_up
from streamproc.cli.console import out, print_json


def warmup(
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Compile every kernel, so that `run` starts fast; used when an image is built.

    Set NUMBA_CACHE_DIR to say where. Example: `streamproc warmup`
    """
    facts = warm_up()
    if as_json:
        print_json(facts)
    else:
        out.print(
            f"{facts['compiled']} kernels compiled, {facts['cached']} from the cache, "
            f"{facts['seconds']} s"
        )

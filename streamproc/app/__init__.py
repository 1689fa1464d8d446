"""The composition root: the one place that names every concrete class.

`config` says what is wanted, `connectors` and `runtime` can do it, this package puts them
together. Command line, demo, benches and process tests all start here.
"""

from streamproc.app.costing import Traffic, WindowCost, window_costs
from streamproc.app.outside import kafka_options
from streamproc.app.replay import replay_files
from streamproc.app.root import probe_store
from streamproc.app.service import open_service
from streamproc.app.warmup import warm_up
from streamproc.config import Settings
from streamproc.config import load as load_settings

__all__ = [
    "Settings",
    "Traffic",
    "WindowCost",
    "kafka_options",
    "load_settings",
    "open_service",
    "probe_store",
    "replay_files",
    "warm_up",
    "window_costs",
]

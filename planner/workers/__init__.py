"""Executors for independent calls: this process, several processes of this machine, or a Dask cluster."""

from planner.workers.base import MAX_LOSSES, Executor, Submit, lost_error, map_unordered
from planner.workers.choose import make_executor
from planner.workers.cluster import DaskExecutor, Tls, connect, tls_of
from planner.workers.inline import InlineExecutor
from planner.workers.processes import ProcessExecutor, usable_cores

__all__ = [
    "MAX_LOSSES",
    "DaskExecutor",
    "Executor",
    "InlineExecutor",
    "ProcessExecutor",
    "Submit",
    "Tls",
    "connect",
    "lost_error",
    "make_executor",
    "map_unordered",
    "tls_of",
    "usable_cores",
]

"""Who makes calls that are independent of each other: this process, several of this machine, or a Dask cluster."""

from planner.workers.base import MAX_LOSSES, Submit, Workers, lost, results
from planner.workers.choose import chosen
from planner.workers.cluster import Cluster, Tls, connected, tls_of
from planner.workers.here import Here
from planner.workers.processes import Processes, usable_cores

__all__ = [
    "MAX_LOSSES",
    "Cluster",
    "Here",
    "Processes",
    "Submit",
    "Tls",
    "Workers",
    "chosen",
    "connected",
    "lost",
    "results",
    "tls_of",
    "usable_cores",
]

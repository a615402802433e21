"""Choice of an executor from the settings that users give."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from planner.errors import InputError, setting
from planner.workers.base import Executor
from planner.workers.cluster import Tls, connect
from planner.workers.inline import InlineExecutor
from planner.workers.processes import ProcessExecutor, usable_cores


@contextmanager
def make_executor(
    jobs: int | None = None, scheduler: str | None = None, tls: Tls | None = None, packages: Sequence[str] = ()
) -> Iterator[Executor]:
    """Open the executor that was asked for, and close it at the end.

    Args:
        jobs: Number of processes of this machine; as many as cores that this one may use unless given.
        scheduler: Address of a Dask cluster, instead of processes.
        tls: Files for an encrypted connection to it.
        packages: Packages, beside the planner, whose version must be the same on all workers of a cluster.

    Raises:
        InputError: If these do not go together, or no scheduler answers.
    """
    if scheduler is not None and jobs is not None:
        raise InputError(f"{setting('scheduler')} leaves the work to its cluster: give it without {setting('jobs')}.")
    if scheduler is None and tls is not None:
        raise InputError(
            f"{setting('tls_ca')}, {setting('tls_cert')} and {setting('tls_key')} are for "
            f"{setting('scheduler', 'tls://host:port')}, got none."
        )
    if scheduler is not None:
        with connect(scheduler, tls, packages) as cluster:
            yield cluster
        return
    jobs = usable_cores() if jobs is None else jobs
    yield InlineExecutor() if jobs == 1 else ProcessExecutor(jobs)

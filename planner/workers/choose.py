"""Who is to work, as the command line says it."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from planner.errors import InputError
from planner.workers.base import Executor
from planner.workers.cluster import Tls, connect
from planner.workers.inline import InlineExecutor
from planner.workers.processes import ProcessExecutor, usable_cores


@contextmanager
def make_executor(
    jobs: int | None = None, scheduler: str | None = None, tls: Tls | None = None, alike: Sequence[str] = ()
) -> Iterator[Executor]:
    """Decide who works.

    Args:
        jobs: How many processes of this machine; as many as cores that this one may use unless given.
        scheduler: The address of a Dask cluster instead.
        tls: Files for it.
        alike: The packages, beside the planner, whose version must be the same on all workers of a cluster.

    Raises:
        InputError: If these do not go together, or nobody answers.
    """
    if scheduler is not None and jobs is not None:
        raise InputError("--scheduler leaves the work to its cluster: give it without --jobs.")
    if scheduler is None and tls is not None:
        raise InputError("--tls-ca, --tls-cert and --tls-key are for --scheduler tls://host:port, got none.")
    if scheduler is not None:
        with connect(scheduler, tls, alike) as cluster:
            yield cluster
        return
    jobs = usable_cores() if jobs is None else jobs
    yield InlineExecutor() if jobs == 1 else ProcessExecutor(jobs)

"""Calls on a Dask cluster: each is a task, and no worker holds what would be lost with it."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError, PlannerError, setting
from planner.workers.base import Submit
from planner.workers.watch import TIMEOUT_ERRORS, FutureWatch

CONNECT_TIMEOUT_S = 10
_RECONNECT_TIMEOUT_S = 2
_CLOSE_TIMEOUT_S = 2
# Version of each distribution of these names that is installed, by its name.
_VERSIONS = (
    "{{name: found[name] for found in [{{d.metadata['Name']: d.version for d in __import__('importlib.metadata', "
    "fromlist=['distributions']).distributions()}}] for name in {names} if name in found}}"
)


@dataclass(frozen=True)
class Tls:
    """Certificate files by which client and cluster authenticate each other."""

    tls_ca_file: Path
    tls_client_cert: Path
    tls_client_key: Path


class DaskExecutor:
    """Workers of a Dask cluster; a call that is lost with one of them is made by another."""

    def __init__(self, client: Any, address: str) -> None:
        self.client, self.address = client, address
        self._resume_hint = "run it again"

    @property
    def num_workers(self) -> int:
        self._check_connected()
        try:
            threads: dict[str, int] = self.client.nthreads()
        except (*TIMEOUT_ERRORS, OSError, RuntimeError):
            raise self._lost_error() from None
        return max(1, sum(threads.values()))

    @contextmanager
    def session(self, shared: object, num_calls: int, resume_hint: str) -> Iterator[Submit]:
        """Open a session, see `Executor`."""
        import dask
        from distributed import KilledWorker

        self._resume_hint = resume_hint
        sent = self._send(shared)
        watch = FutureWatch(self.client)

        def submit(task: Callable[..., Any], *args: Any) -> "Future[Any]":
            nonlocal sent
            self._check_connected()
            if sent.status != "finished" or watch.silent_loss:
                sent = self._send(shared)
                watch.silent_loss = False
            return watch.follow(self.client.submit(_call, task, sent, args, pure=False))

        try:
            # Arguments may be large: they are kept with the task, since what lies on a worker is lost with it.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
                yield submit
        except KilledWorker as error:
            raise PlannerError(
                f"{self.address}: {error.allowed_failures + 1} workers died in the same call, the last at "
                f"{error.last_worker.address}, perhaps for want of memory; {resume_hint}."
            ) from None
        finally:
            watch.end()
            sent.release()

    def _send(self, shared: object) -> Any:
        """Send the shared data to every worker."""
        try:
            self.client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
            return self.client.scatter(shared, broadcast=True, hash=False, timeout=CONNECT_TIMEOUT_S)
        except TIMEOUT_ERRORS as error:
            self._check_connected()
            raise PlannerError(
                f"{self.address}: the cluster must have a worker, got none for {CONNECT_TIMEOUT_S} s "
                f"({_one_line(error)}); {self._resume_hint}."
            ) from None
        # A client that has lost its scheduler cancels whatever is asked of it.
        except (OSError, RuntimeError):
            raise self._lost_error() from None

    def _check_connected(self) -> None:
        """Check that the scheduler is there; a connection that was just lost may come back.

        Raises:
            PlannerError: If it does not.
        """
        deadline = time.monotonic() + _RECONNECT_TIMEOUT_S
        while self.client.status == "connecting" and time.monotonic() < deadline:
            time.sleep(0.05)
        if self.client.status != "running":
            raise self._lost_error()

    def _lost_error(self) -> PlannerError:
        return PlannerError(
            f"{self.address}: the scheduler must stay until the work is done, got no connection to it any more; "
            f"{self._resume_hint}."
        )


@contextmanager
def connect(address: str, tls: Tls | None, packages: Sequence[str] = ()) -> Iterator[DaskExecutor]:
    """Connect to a cluster, and disconnect at the end.

    Args:
        address: Address of its scheduler, tcp://host:port or tls://host:port.
        tls: Certificate files, needed where the address begins with tls.
        packages: Packages, beside the planner, whose version must be the same on all workers as here.

    Raises:
        InputError: If `distributed` is not installed, no scheduler answers there, or a worker has other versions.
    """
    try:
        import dask
        from distributed import Client
        from distributed.security import Security
    except ModuleNotFoundError:
        raise InputError(
            f"{setting('scheduler')} needs distributed, which is not installed: pip install 'vit-planner[deploy]'."
        ) from None
    _silence_logs()
    files = {} if tls is None else {key: str(path) for key, path in asdict(tls).items()}
    try:
        security = Security(**files, require_encryption=True) if files else Security()
        with ThreadPoolExecutor(1) as thread:
            # In a thread, since this one may have an event loop already, as in a notebook.
            thread.submit(asyncio.run, _check_scheduler(address, security)).result()
        client = Client(address, timeout=CONNECT_TIMEOUT_S, security=security, set_as_default=False)
    # Whatever answers may be no scheduler, and fail in any way.
    except Exception as error:
        raise InputError(
            f"{setting('scheduler', address)}: a Dask scheduler must answer there within {CONNECT_TIMEOUT_S} s, "
            f"got none ({_one_line(error)}); start one by `dask scheduler`, and workers by `dask worker {address}`."
        ) from None
    try:
        _wait_for_versions(client, address, packages)
        # From now on it is known to be there: a question to one that is gone must not wait for it to come.
        with dask.config.set({"distributed.comm.timeouts.connect": f"{_RECONNECT_TIMEOUT_S}s"}):
            yield DaskExecutor(client, address)
    finally:
        # A scheduler that is gone cannot be told that nobody needs it any more.
        with suppress(Exception):
            client.close(timeout=_CLOSE_TIMEOUT_S)


def _silence_logs() -> None:
    """Silence what Dask logs: of a connection that is lost, it would come behind the sentence that says so."""
    packages = ("distributed", "tornado", "asyncio")
    # Dask gives many of its loggers a level of their own.
    below = [name for name in logging.root.manager.loggerDict if name.partition(".")[0] in packages]
    for name in (*packages, *below):
        logging.getLogger(name).setLevel(logging.CRITICAL)


async def _check_scheduler(address: str, security: Any) -> None:
    """Check that a scheduler answers; a client of something else would wait for ever.

    Raises:
        Exception: If there is none, of whatever type.
    """
    from distributed.core import rpc

    async def identity() -> Any:
        async with rpc(address, connection_args=security.get_connection_args("client")) as scheduler:
            return await scheduler.identity()

    found = await asyncio.wait_for(identity(), CONNECT_TIMEOUT_S)
    if found.get("type") != "Scheduler":
        raise ValueError(f"it is a {found.get('type')}")


def _wait_for_versions(client: Any, address: str, packages: Sequence[str]) -> None:
    """Wait for a worker, and refuse workers that lack a package or have other versions than this process."""
    names = ["vit-planner", *packages]
    try:
        client.wait_for_workers(1, timeout=CONNECT_TIMEOUT_S)
        # A worker without the planner knows none of its functions, but it can evaluate a text.
        found = client.run(eval, _VERSIONS.format(names=names))
    except (*TIMEOUT_ERRORS, OSError) as error:
        raise InputError(
            f"{setting('scheduler', address)}: the cluster must have a worker, got none within "
            f"{CONNECT_TIMEOUT_S} s ({_one_line(error)}); start one by `dask worker {address}`."
        ) from None
    _check_workers(found, eval(_VERSIONS.format(names=names)))


def tls_of(ca: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
    """Return the certificate files if all three are given, None if none is.

    Raises:
        InputError: If some are missing.
    """
    given = {"tls_ca": ca, "tls_cert": cert, "tls_key": key}
    for name, path in given.items():
        if path is not None and not path.is_file():
            raise InputError(f"{setting(name, path)}: must be a PEM file, got no such file.")
    if ca is None and cert is None and key is None:
        return None
    if ca is None or cert is None or key is None:
        missing = [setting(name) for name, path in given.items() if path is None]
        raise InputError(f"{', '.join(map(setting, given))}: TLS needs all three, got none for {', '.join(missing)}.")
    return Tls(ca, cert, key)


def _call(task: Callable[..., Any], shared: object, args: tuple[Any, ...]) -> Any:
    return task(shared, *args)


def _check_workers(found: dict[str, dict[str, str]], ours: dict[str, str]) -> None:
    """Refuse workers with other versions than ours: they would give other results, or none."""
    for worker, theirs in found.items():
        if missing := [name for name in ours if name not in theirs]:
            raise InputError(
                f"worker {worker}: must have {missing[0]} {ours[missing[0]]} installed, got none; install the same "
                "there as here."
            )
        if theirs != ours:
            raise InputError(f"worker {worker}: versions must be {ours}, got {theirs}; install the same.")


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

"""Calls on a Dask cluster: each is a task, and no worker holds what would be lost with it."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from planner.errors import InputError, PlannerError
from planner.version import __version__
from planner.workers.base import Submit
from planner.workers.watch import FutureWatch

PATIENCE_S = 10


@dataclass(frozen=True)
class Tls:
    """Files by which both sides know each other."""

    tls_ca_file: Path
    tls_client_cert: Path
    tls_client_key: Path


class DaskExecutor:
    """The workers of a cluster; a call that is lost with one of them is made by another."""

    def __init__(self, client: Any, address: str) -> None:
        self.client, self.address = client, address

    @property
    def width(self) -> int:
        threads: dict[str, int] = self.client.nthreads()
        return max(1, sum(threads.values()))

    @contextmanager
    def lent(self, carried: object, num_calls: int, kept: str) -> Iterator[Submit]:
        """See `Workers`."""
        import dask
        from distributed import KilledWorker

        sent = self._send(carried, kept)
        watch = FutureWatch(self.client)

        def submit(task: Callable[..., Any], *args: Any) -> "Future[Any]":
            nonlocal sent
            if sent.status != "finished" or watch.silent_loss:
                sent = self._send(carried, kept)
                watch.silent_loss = False
            return watch.follow(self.client.submit(_call, task, sent, args, pure=False))

        try:
            # Arguments may be large, and lie with the task lest they are lost with a worker.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
                yield submit
        except KilledWorker as error:
            raise PlannerError(
                f"{self.address}: {error.allowed_failures + 1} workers died in the same call, the last at "
                f"{error.last_worker.address}, perhaps for want of memory; {kept}."
            ) from None
        finally:
            watch.end()
            sent.release()

    def _send(self, carried: object, kept: str) -> Any:
        """Give what is carried to every worker."""
        try:
            self.client.wait_for_workers(1, timeout=PATIENCE_S)
            return self.client.scatter(carried, broadcast=True, hash=False, timeout=PATIENCE_S)
        # A client that has lost its scheduler cancels whatever is asked of it.
        except (OSError, TimeoutError, RuntimeError) as error:
            raise PlannerError(
                f"{self.address}: the cluster must have a worker, got none for {PATIENCE_S} s ({_said(error)}); {kept}."
            ) from None


@contextmanager
def connect(address: str, tls: Tls | None, alike: Sequence[str] = ()) -> Iterator[DaskExecutor]:
    """Use a cluster.

    Args:
        address: Of its scheduler, tcp://host:port or tls://host:port.
        tls: Needed where the address begins with tls.
        alike: The packages, beside the planner, whose version must be the same on all workers as here.

    Raises:
        InputError: If `distributed` is not installed, nobody answers there, or a worker has other versions.
    """
    try:
        from distributed import Client
        from distributed.security import Security
    except ModuleNotFoundError:
        raise InputError(
            "--scheduler needs distributed, which is not installed: pip install 'vit-planner[deploy]'."
        ) from None
    try:
        files = {} if tls is None else {key: str(path) for key, path in asdict(tls).items()}
        security = Security(**files, require_encryption=True) if files else None
        client = Client(address, timeout=PATIENCE_S, security=security, set_as_default=False)
    except (OSError, TimeoutError, ValueError, TypeError, RuntimeError) as error:
        raise InputError(
            f"--scheduler {address}: a Dask scheduler must answer there within {PATIENCE_S} s, got none "
            f"({_said(error)}); start one by `dask scheduler`, and workers by `dask worker {address}`."
        ) from None
    with client:
        try:
            client.wait_for_workers(1, timeout=PATIENCE_S)
            _check_workers(client.run(_versions, alike), _versions(alike))
        except (OSError, TimeoutError) as error:
            raise InputError(
                f"--scheduler {address}: the cluster must have a worker, got none within {PATIENCE_S} s "
                f"({_said(error)}); start one by `dask worker {address}`."
            ) from None
        yield DaskExecutor(client, address)


def tls_of(ca: Path | None, cert: Path | None, key: Path | None) -> Tls | None:
    """Return the files for TLS, all three or none.

    Raises:
        InputError: If some are missing.
    """
    given = {"--tls-ca": ca, "--tls-cert": cert, "--tls-key": key}
    for flag, path in given.items():
        if path is not None and not path.is_file():
            raise InputError(f"{flag} {path}: must be a PEM file, got no such file.")
    if ca is None and cert is None and key is None:
        return None
    if ca is None or cert is None or key is None:
        missing = [flag for flag, path in given.items() if path is None]
        raise InputError(f"{', '.join(given)}: TLS needs all three, got none for {', '.join(missing)}.")
    return Tls(ca, cert, key)


def _call(task: Callable[..., Any], carried: object, args: tuple[Any, ...]) -> Any:
    return task(carried, *args)


def _versions(alike: Sequence[str]) -> dict[str, str]:
    return {"planner": __version__} | {name: version(name) for name in alike}


def _check_workers(found: dict[str, dict[str, str]], ours: dict[str, str]) -> None:
    """All workers have our planner and what it leans on: others give other results, or none."""
    for worker, theirs in found.items():
        if theirs != ours:
            raise InputError(f"worker {worker}: versions must be {ours}, got {theirs}; install the same.")


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

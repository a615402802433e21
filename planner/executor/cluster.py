"""Training on a Dask cluster: each epoch is a task, and no worker holds what would be lost with it."""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from planner.errors import InputError, PlannerError
from planner.executor.epochs import Carried, OnEpoch, train_by_epochs
from planner.network.training import Training

PATIENCE_S = 10


@dataclass(frozen=True)
class Tls:
    """Files by which both sides know each other."""

    tls_ca_file: Path
    tls_client_cert: Path
    tls_client_key: Path


class Cluster:
    """Side by side on the workers of a cluster, one thread for each epoch."""

    device = "cpu"

    def __init__(self, client: Any, address: str) -> None:
        self.client, self.address = client, address

    @property
    def width(self) -> int:
        threads: dict[str, int] = self.client.nthreads()
        return max(1, sum(threads.values()))

    def __call__(self, trainings: Sequence[Training], states: Sequence[Path], on_epoch: OnEpoch) -> None:
        import dask
        from distributed import KilledWorker

        carried = Carried(trainings)
        executor = self.client.get_executor(pure=False)
        sent = self._send(carried)

        def submit(i: int, state: bytes | None) -> "Future[bytes]":
            nonlocal sent
            if sent.status != "finished":
                sent = self._send(carried)
            future: Future[bytes] = executor.submit(Carried.run_epoch, sent, i, state)
            return future

        try:
            # A state may be large, and lies with the task lest it is lost with a worker.
            with dask.config.set({"distributed.admin.large-graph-warning-threshold": "1TB"}):
                train_by_epochs(trainings, states, on_epoch, submit)
        except KilledWorker as error:
            raise PlannerError(
                f"{self.address}: {error.allowed_failures + 1} workers died in the same epoch, the last at "
                f"{error.last_worker.address}, perhaps for want of memory; the same command goes on from the last "
                "finished epochs."
            ) from None
        finally:
            sent.release()

    def _send(self, carried: Carried) -> Any:
        """Give the trainings to every worker."""
        try:
            self.client.wait_for_workers(1, timeout=PATIENCE_S)
            return self.client.scatter(carried, broadcast=True, hash=False, timeout=PATIENCE_S)
        # A client that has lost its scheduler cancels whatever is asked of it.
        except (OSError, TimeoutError, RuntimeError) as error:
            raise self._gone(error) from None

    def _gone(self, error: BaseException) -> PlannerError:
        return PlannerError(
            f"{self.address}: the cluster must have a worker, got none for {PATIENCE_S} s ({_said(error)}); the same "
            "command goes on from the last finished epochs."
        )


@contextmanager
def connected(address: str, tls: Tls | None) -> Iterator[Cluster]:
    """Use a cluster.

    Args:
        address: Of its scheduler, tcp://host:port or tls://host:port.
        tls: Needed where the address begins with tls.

    Raises:
        InputError: If `distributed` is not installed, nobody answers there, or a worker has no planner.
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
            _check_workers(client.run(_versions))
        except (OSError, TimeoutError) as error:
            raise InputError(
                f"--scheduler {address}: the cluster must have a worker, got none within {PATIENCE_S} s "
                f"({_said(error)}); start one by `dask worker {address}`."
            ) from None
        yield Cluster(client, address)


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


def _versions() -> tuple[str, str]:
    import torch

    from planner.version import __version__

    return __version__, str(torch.__version__)


def _check_workers(found: dict[str, tuple[str, str]]) -> None:
    """All workers have our planner and torch: others give other bits, or none."""
    ours = _versions()
    for worker, theirs in found.items():
        if theirs != ours:
            raise InputError(f"worker {worker}: planner and torch must be {ours}, got {theirs}; install the same.")


def _said(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__

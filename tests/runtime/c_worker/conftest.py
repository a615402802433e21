"""C workers around a stub of a sub-model, without TLS and with it, built with sanitizers; a bundle for both engines."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.runtime.device.addresses import Endpoint
from planner.runtime.export import export_bundle
from planner.runtime.export_folders import Exported
from planner.schema import Fleet
from tests.helpers.c_workers import RunningWorker, build, has_compiler, has_mbed_tls, running, write_stub_folder
from tests.helpers.deployments import SmallBundle, linux_boards, make_small_bundle
from tests.helpers.tls_workers import write_certificates, write_tls_folder


@pytest.fixture(scope="session", autouse=True)
def compiler() -> None:
    """Leave the tests out where C cannot be built, but never where changes are judged."""
    if not has_compiler() and not os.environ.get("CI"):
        pytest.skip("no make or cc")


@pytest.fixture(scope="session")
def stub_folder(compiler: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a device `pump` with three features; not to be changed."""
    return write_stub_folder(tmp_path_factory.mktemp("c-worker") / "pump")


@pytest.fixture(scope="session")
def program(stub_folder: Path) -> Path:
    """Worker of that folder, built with sanitizers and without any warning."""
    return build(stub_folder)


@pytest.fixture
def worker(program: Path, stub_folder: Path) -> Iterator[RunningWorker]:
    """A worker that runs on loopback."""
    with running(program, stub_folder) as running_worker:
        yield running_worker


@pytest.fixture(scope="session")
def mixed_bundle(compiler: None, tmp_path_factory: pytest.TempPathFactory) -> SmallBundle:
    """Bundle for a board with ONNX Runtime, a microcontroller, in int8, and a Linux board whose engine is C."""
    boards = linux_boards("float32", "int8", "float32")
    devices = [device.model_dump() | {"engine": None} for device in boards.devices]
    devices[1] |= {"kind": "esp32-s3"}
    devices[2] |= {"engine": "c"}
    fleet = Fleet.model_validate(boards.model_dump() | {"devices": devices})
    return make_small_bundle(tmp_path_factory.mktemp("mixed-bundle"), fleet)


@pytest.fixture(scope="session")
def mixed_exported(mixed_bundle: SmallBundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Path]:
    """Deployment of that bundle, whose last board speaks TLS: not to be changed, but copied."""
    out = tmp_path_factory.mktemp("mixed-deployment") / "deploy"
    return export_bundle(mixed_bundle.path, mixed_bundle.fleet, out, tls=("c",)), out


@pytest.fixture(scope="session")
def mbed_tls(compiler: None) -> None:
    """Leave tests out where there is no Mbed TLS, but never where changes are judged."""
    if not has_mbed_tls() and not os.environ.get("CI"):
        pytest.skip("no Mbed TLS")


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Certificates of two devices, each with its key beside it."""
    pytest.importorskip("cryptography")
    return write_certificates(tmp_path_factory.mktemp("certificates"), "pump", "other")


@pytest.fixture(scope="session")
def tls_folder(mbed_tls: None, certificates: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a device `pump`; not to be changed."""
    return write_tls_folder(tmp_path_factory.mktemp("c-worker-tls") / "pump", certificates["pump"])


@pytest.fixture(scope="session")
def tls_program(tls_folder: Path) -> Path:
    """Worker of that folder, built with sanitizers and without any warning."""
    return build(tls_folder)


@pytest.fixture
def tls_worker(tls_program: Path, tls_folder: Path) -> Iterator[RunningWorker]:
    """A worker whose address counts as one beyond loopback."""
    with running(tls_program, tls_folder) as worker:
        yield worker


@pytest.fixture
def beyond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the aggregator, too, take loopback for the network."""
    monkeypatch.setattr(Endpoint, "is_loopback", property(lambda self: False))

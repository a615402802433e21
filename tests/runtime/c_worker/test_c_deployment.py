"""Deployments with engine C: exported beside torch's answers, rehearsed, and brought to a board."""

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from planner.errors import InputError
from planner.runtime.aggregator import Aggregator
from planner.runtime.c.build import build_worker
from planner.runtime.deploy import deploy, parse_targets, roll_back_to_previous
from planner.runtime.deployment import Deployment, read_deployment
from planner.runtime.device.addresses import Endpoint
from planner.runtime.export import export_bundle
from planner.runtime.export_folders import Exported
from planner.runtime.known_workers import workers_of
from planner.runtime.rehearsal import RehearsalOptions, rehearse
from tests.helpers.deployments import SmallBundle, copied
from tests.helpers.raw_peer import PATIENCE_S
from tests.helpers.ssh_board import Board, is_running, ssh_board
from tests.helpers.stub_fleet import stub_deployment
from tests.helpers.tls_workers import BEYOND, narrow_loopback


@pytest.fixture(autouse=True)
def quick_builds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Build workers in less time."""
    monkeypatch.setenv("CFLAGS", "-O1")


def without_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take compilers and make off the path."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.delenv("CC", raising=False)


def test_engines_are_those_of_devices_and_their_kinds(
    mixed_bundle: SmallBundle, mixed_exported: tuple[Exported, Path], tmp_path: Path
) -> None:
    """The kind's engine or the device's own is exported; where ONNX Runtime stands in for C, that is marked."""
    devices = mixed_exported[0].manifest.devices
    assert [(d.engine, d.certificate) for d in devices] == [("onnxruntime", "00.pem"), ("c", None), ("c", "02.pem")]
    export_bundle(mixed_bundle.path, mixed_bundle.fleet, tmp_path / "deploy", stand_in=True)
    deployment = read_deployment(tmp_path / "deploy")
    assert [device.manifest.engine for device in deployment.devices] == ["onnxruntime"] * 3
    assert [device.manifest.stand_in for device in deployment.devices] == [False, True, True]
    assert [device.stand_in for device in deployment.manifest.devices] == [False, True, True]


def test_a_folder_holds_all_that_a_board_needs(mixed_exported: tuple[Exported, Path]) -> None:
    """The manifest names the engine and the hash of every file but the secret; there is no certificate, and no TLS."""
    folder = mixed_exported[1] / "01-b"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert (manifest["engine"], manifest["model"], manifest["precision"]) == ("c", "model.c", "int8")
    names = {path.name for path in folder.iterdir()}
    assert set(manifest["sha256"]) == names - {"manifest.json", "token"}
    assert {"model.c", "worker.c", "posix.c", "example_lwip.c", "Makefile", "README.md", "run.sh"} <= names
    assert "tls.c" not in names
    assert "Bytes are not encrypted" in (folder / "README.md").read_text()


def test_a_folder_with_tls_has_a_certificate_and_its_key(mixed_exported: tuple[Exported, Path]) -> None:
    """The key is for its owner alone, the aggregator has the certificate, and connects with it beyond loopback."""
    folder = mixed_exported[1] / "02-c"
    names = {path.name for path in folder.iterdir()}
    secrets = {"manifest.json", "token", "certificate.pem", "key.pem"}
    assert set(json.loads((folder / "manifest.json").read_text())["sha256"]) == names - secrets
    assert secrets | {"tls.h", "tls.c"} <= names
    assert (folder / "key.pem").stat().st_mode & 0o777 == 0o600
    deployment = read_deployment(mixed_exported[1])
    pinned = deployment.devices[2].certificate
    assert pinned is not None
    assert pinned.read_bytes() == (folder / "certificate.pem").read_bytes()
    known = workers_of(deployment, dict.fromkeys("abc", "192.0.2.1:7447"))
    assert [worker.context is not None for worker in known] == [True, False, True]


@pytest.mark.parametrize(
    ("names", "stand_in", "message"),
    [
        ("ca", False, "must name devices with the C engine, got 'a', whose worker is one of Python"),
        ("b", True, "must name devices with the C engine, got 'b', whose worker is one of Python"),
        ("cd", False, "must name devices that the plan uses, got 'd'"),
        (("",), False, "must name devices that the plan uses, got ''"),
        ("cb", False, r"must name Linux boards, got 'b' \(kind 'esp32-s3'\), a microcontroller .*; leave it out"),
    ],
)
def test_tls_is_for_linux_boards_with_c(
    mixed_bundle: SmallBundle, tmp_path: Path, names: Sequence[str], stand_in: bool, message: str
) -> None:
    """A worker of Python has it anyway, a device that is not there and a firmware have none; nothing is written."""
    with pytest.raises(InputError, match=message):
        export_bundle(mixed_bundle.path, mixed_bundle.fleet, tmp_path / "deploy", stand_in=stand_in, tls=names)
    assert not list(tmp_path.iterdir())


def test_what_is_exported_was_compared_with_torch(mixed_exported: tuple[Exported, Path]) -> None:
    """Float32: torch's features to 1e-4. int8: not those, and measured."""
    errors = mixed_exported[0].comparison.feature_errors
    assert errors[1] is not None
    assert errors[2] is not None
    assert errors[2] <= 1e-4 < errors[1] < 0.5
    assert mixed_exported[0].manifest.accuracy.exported is not None


def test_a_rehearsal_runs_both_engines(mixed_bundle: SmallBundle) -> None:
    """Right are as many as the export measured; a worker in C is a small process, and comes back after a kill."""
    rehearsal = rehearse(mixed_bundle.path, mixed_bundle.fleet, RehearsalOptions(num_images=25))
    assert [device.engine for device in rehearsal.devices] == ["onnxruntime", "c", "c"]
    assert not any(device.stand_in for device in rehearsal.devices)
    assert [device.num_replies for device in rehearsal.devices] == [25] * 3
    assert rehearsal.num_unanswered == 0
    assert round(25 * rehearsal.accuracy) == round(25 * rehearsal.exported_accuracy)
    for device in rehearsal.devices[1:]:
        assert device.interpreter_bytes is None
        assert device.peak_bytes is not None
        assert device.peak_bytes < 16 * 2**20
        assert device.compute.measured_us is not None
        assert device.compute.measured_us.p10 >= device.compute.held_us > 0


def test_without_a_compiler_sub_models_are_not_checked(
    mixed_bundle: SmallBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Folders are written all the same, which a board may build; what was not measured is null."""
    with monkeypatch.context() as patch:
        without_compiler(patch)
        exported = export_bundle(mixed_bundle.path, mixed_bundle.fleet, tmp_path / "deploy")
    assert exported.comparison.feature_errors[0] is not None
    assert exported.comparison.feature_errors[1:] == (None, None)
    assert exported.comparison.num_changed is None
    assert exported.manifest.accuracy.exported is None
    folder = tmp_path / "deploy" / "01-b"
    tested = subprocess.run([build_worker(folder), folder, "--self-test"], capture_output=True, text=True)
    assert tested.returncode == 0, tested.stderr


def test_without_a_compiler_a_rehearsal_says_so(mixed_bundle: SmallBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the devices, what to install, and what to do without."""
    without_compiler(monkeypatch)
    said = r"^b, c: sub-models in C are built for a rehearsal\. To run C here, a compiler .* \(`stand_in`\)\.$"
    with pytest.raises(InputError, match=said):
        rehearse(mixed_bundle.path, mixed_bundle.fleet, RehearsalOptions(num_images=1))


def test_only_workers_in_c_are_asked_in_the_clear() -> None:
    """Beyond loopback, a worker of Python is spoken to with TLS; one in C may have none, and no other goes without."""
    stub = stub_deployment(("hub",), (2,))
    hub = stub.manifest.devices[0]
    in_c = hub.replace(engine="c", certificate=None)
    manifest = stub.manifest.replace(devices=(in_c,))
    folder = type(stub.devices[0])(stub.devices[0].path, stub.devices[0].manifest, None)
    deployment = type(stub)(stub.path, manifest, (folder,), stub.fusion, stub.token)
    (known,) = workers_of(deployment, {"hub": "192.0.2.1:7447"})
    assert known.context is None
    with pytest.raises(InputError, match=r"none\.pem: must be a certificate"):
        workers_of(stub, {"hub": "192.0.2.1:7447"})
    with pytest.raises(InputError, match="certificate: must be given, but for engine c, got null for onnxruntime"):
        hub.replace(certificate=None)


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board with a Python that has neither numpy nor onnxruntime."""
    (tmp_path / "board").mkdir()
    with ssh_board(tmp_path / "board") as board:
        packages = board.home / "broken" / "numpy"
        packages.mkdir(parents=True)
        (packages / "__init__.py").write_text("raise ImportError\n")
        board.give_python(f"export PYTHONPATH={packages.parent}")
        monkeypatch.setenv("PATH", f"{board.bin}:{os.environ['PATH']}")
        yield board


def test_a_board_gets_a_program_that_was_built_before(
    mixed_exported: tuple[Exported, Path], board: Board, tmp_path: Path
) -> None:
    """It is executable there, runs without a build, and another one takes its place."""
    deployment = read_deployment(copied(mixed_exported[1], tmp_path / "deploy"))
    (target,) = parse_targets(["b=board"], deployment)
    program = build_worker(target.device.path)
    # A build there would fail.
    (target.device.path / "Makefile").unlink()
    started = deploy(target, "127.0.0.1:0")
    worker = board.worker()
    assert is_running(worker)
    assert started.listening.startswith("127.0.0.1:")
    assert os.access(board.bundles / started.folder / program.name, os.X_OK)
    deploy(target, "127.0.0.1:0")
    assert not is_running(worker)
    assert is_running(board.worker())


def is_answered(deployment: Deployment, listening: str) -> None:
    """Check that device `c` answers through TLS as it did in its export; the other devices are away."""
    nowhere = "127.0.0.1:9"
    place, device = 2, deployment.devices[2]
    assert workers_of(deployment, {"a": nowhere, "b": nowhere, "c": listening})[place].context is not None
    with Aggregator(deployment, {"a": nowhere, "b": nowhere, "c": listening}, 60_000_000) as aggregator:
        until = time.monotonic() + PATIENCE_S
        while not aggregator.states()[place].is_up and time.monotonic() < until:
            aggregator.step(time.monotonic_ns() + 10_000_000)
        shape = device.manifest.input.shape
        answer = aggregator.answer(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))
    assert answer.missing == ("a", "b")


@pytest.mark.usefixtures("mbed_tls")
def test_a_worker_with_tls_is_built_on_its_board(
    mixed_exported: tuple[Exported, Path], board: Board, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its key stays its owner's, beyond loopback the aggregator is answered through TLS, and after a rollback too."""
    deployment = read_deployment(copied(mixed_exported[1], tmp_path / "deploy"))
    (target,) = parse_targets(["c=board"], deployment)
    narrow_loopback(target.device.path)
    started = deploy(target, f"{BEYOND}:0")
    on_board = board.bundles / started.folder
    assert os.access(on_board / "worker", os.X_OK)
    assert not (target.device.path / "worker").exists()
    assert {(on_board / name).stat().st_mode & 0o777 for name in ("key.pem", "token")} == {0o600}
    monkeypatch.setattr(Endpoint, "is_loopback", property(lambda self: False))
    is_answered(deployment, started.listening)
    (target.device.path / "README.md").write_text("Exported anew.\n")
    assert deploy(target, f"{BEYOND}:0").folder != started.folder
    again = roll_back_to_previous(target, f"{BEYOND}:0")
    assert again.folder == started.folder
    is_answered(deployment, again.listening)

"""Deployment over ssh to a board that an sshd of the test's own leads to."""

import os
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.errors import InputError, PlannerError
from planner.runtime.deploy import deploy, parse_targets, roll_back_to_previous
from planner.runtime.deployment import read_deployment
from planner.runtime.export import export_bundle
from planner.runtime.export_folders import Exported
from tests.helpers.common import PATIENCE_S
from tests.helpers.deployments import SmallBundle, change_json, copied
from tests.helpers.ssh_board import Board, is_running, ssh_board

ANY_PORT = "127.0.0.1:0"


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Board]:
    """A board with a Python that has numpy and onnxruntime."""
    (tmp_path / "board").mkdir()
    with ssh_board(tmp_path / "board") as board:
        board.give_python()
        monkeypatch.setenv("PATH", f"{board.bin}:{os.environ['PATH']}")
        yield board


def first_bytes(address: str) -> bytes:
    """Return the beginning of what a worker says to whoever connects."""
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=PATIENCE_S) as connection:
        return connection.recv(9, socket.MSG_WAITALL)


@pytest.mark.parametrize(
    ("to", "message"),
    [
        ("a", r"`to` must be NAME=USER@HOST, such as pi-1=pi@10\.0\.0\.3, got 'a'"),
        ("a=", r"`to` must be NAME=USER@HOST"),
        ("a=-oProxyCommand=touch x", r"`to` must be NAME=USER@HOST"),
        ("a=-V", r"`to` must be NAME=USER@HOST"),
        ("a=pi@x\n", r"`to` must be NAME=USER@HOST"),
        ("d=pi@x", r"`to` must name a device of the deployment, got 'd'"),
        ("a=pi@x,b=pi@x", r"each device and each board once, got 'b=pi@x' too"),
        ("a=pi@x,a=pi@y", r"each device and each board once, got 'a=pi@y' too"),
    ],
)
def test_targets_are_checked(exported: tuple[Exported, Path], to: str, message: str) -> None:
    """What is no device, no board, or an option of ssh is refused before anything is done."""
    if to.endswith("\n"):
        to = to.replace("\n", "\x0b") + "y"
    with pytest.raises(InputError, match=message):
        parse_targets([to], read_deployment(exported[1]))


def test_targets_are_named_apart_or_together(exported: tuple[Exported, Path]) -> None:
    """Several devices stand in one text or in several; ports and users are ssh's matter."""
    targets = parse_targets(["a=pi@10.0.0.2,c=ssh://pi@10.0.0.3:2222", "b=board"], read_deployment(exported[1]))
    assert [(t.device.path.name, t.destination) for t in targets] == [
        ("00-a", "pi@10.0.0.2"),
        ("02-c", "ssh://pi@10.0.0.3:2222"),
        ("01-b", "board"),
    ]


def test_boards_without_onnx_runtime_are_refused(exported: tuple[Exported, Path]) -> None:
    """What was exported for a rehearsal is not brought to a board."""
    deployment = read_deployment(exported[1])
    device = deployment.devices[0]
    stand_in = device.manifest.replace(stand_in=True)
    devices = (type(device)(device.path, stand_in, device.certificate), *deployment.devices[1:])
    marked = type(deployment)(deployment.path, deployment.manifest, devices, deployment.fusion, deployment.token)
    with pytest.raises(InputError, match=r"^a: was exported for a rehearsal"):
        parse_targets(["a=pi@x"], marked)


@pytest.mark.parametrize(
    "listen", ["7447", "0.0.0.0", "0.0.0.0:7447; reboot", "$(reboot):1", "a b:1", "':1", "a:123456"]
)
def test_addresses_are_plain(exported: tuple[Exported, Path], listen: str) -> None:
    """The address stands in a command line there: only plain characters are taken."""
    (target,) = parse_targets(["a=absent"], read_deployment(exported[1]))
    with pytest.raises(InputError, match=r"`listen` must be HOST:PORT"):
        deploy(target, listen)
    with pytest.raises(InputError, match=r"`listen` must be HOST:PORT"):
        roll_back_to_previous(target, listen)


def test_a_board_gets_its_folder_and_its_worker(
    exported: tuple[Exported, Path], small_bundle: SmallBundle, board: Board, tmp_path: Path
) -> None:
    """Deployed, deployed anew from another export, gone back, and deployed once more: each time the right one runs."""
    deployment = read_deployment(exported[1])
    (target,) = parse_targets(["a=board"], deployment)
    started = deploy(target, ANY_PORT)
    assert first_bytes(started.listening)[4:] == b"\x01VITP"
    first, first_worker = board.folder_of("current"), board.worker()
    assert started.folder == first
    there = board.bundles / first
    assert {path.name for path in there.iterdir()} - {"install.py"} == {
        path.name for path in target.device.path.iterdir()
    }
    for path in target.device.path.iterdir():
        assert (there / path.name).read_bytes() == path.read_bytes()
        assert stat.S_IMODE((there / path.name).stat().st_mode) == 0o600
    with pytest.raises(PlannerError, match=r"^a \(board\): there is no earlier bundle to go back to\.$"):
        roll_back_to_previous(target, ANY_PORT)
    assert is_running(first_worker)

    # The same bundle, exported again: other secrets, another folder.
    export_bundle(small_bundle.path, small_bundle.fleet, tmp_path / "again")
    (other,) = parse_targets(["a=board"], read_deployment(tmp_path / "again"))
    second = deploy(other, ANY_PORT)
    assert (board.folder_of("current"), board.folder_of("previous")) == (second.folder, first)
    assert second.folder != first
    assert not is_running(first_worker)
    assert first_bytes(second.listening)[4:] == b"\x01VITP"

    back = roll_back_to_previous(target, ANY_PORT)
    assert (board.folder_of("current"), board.folder_of("previous")) == (first, second.folder)
    assert first_bytes(back.listening)[4:] == b"\x01VITP"
    # The same folder once more is restarted, and is not its own predecessor.
    deploy(target, ANY_PORT)
    assert (board.folder_of("current"), board.folder_of("previous")) == (first, second.folder)
    # Of three, the oldest goes.
    (third,) = parse_targets(["b=board"], deployment)
    kept = deploy(third, ANY_PORT)
    folders = {path.name for path in board.bundles.iterdir() if path.is_dir() and not path.is_symlink()}
    assert folders == {"venv", first, kept.folder}


def test_a_folder_that_fails_changes_nothing(exported: tuple[Exported, Path], board: Board, tmp_path: Path) -> None:
    """A self-test that fails there, or a worker that cannot start, leaves the worker before it at work."""
    deployment = read_deployment(exported[1])
    (target,) = parse_targets(["a=board"], deployment)
    started = deploy(target, ANY_PORT)
    first, address, worker = started.folder, started.listening, board.worker()
    damaged = copied(exported[1], tmp_path / "damaged")
    (broken,) = parse_targets(["a=board"], read_deployment(damaged))
    change_json(damaged / "00-a" / "manifest.json", features=3)
    with pytest.raises(PlannerError, match=r"^a \(board\): the self-test failed \(.*\)\.$"):
        deploy(broken, ANY_PORT)
    assert (board.folder_of("current"), board.worker()) == (first, worker)
    assert is_running(worker)
    # An address of no interface of this machine.
    (other,) = parse_targets(["b=board"], deployment)
    with pytest.raises(PlannerError, match=r"^b \(board\): the worker did not start \(.*192\.0\.2\.1.*\)\.$"):
        deploy(other, "192.0.2.1:7447")
    assert board.folder_of("current") == first
    assert board.worker() != worker
    assert first_bytes(address)[4:] == b"\x01VITP"
    assert not (board.bundles / "previous").exists()
    assert not list(board.bundles.glob(".incoming-*"))


def test_what_is_missing_is_said(exported: tuple[Exported, Path], board: Board) -> None:
    """No connection, no numpy, no Python: each in one sentence that says what to do."""
    absent, target = parse_targets(["a=absent,b=board"], read_deployment(exported[1]))
    with pytest.raises(PlannerError, match=r"^a \(absent\): ssh must reach the board, got: .*; try: ssh absent\.$"):
        deploy(absent, ANY_PORT)
    broken = board.home / "broken" / "onnxruntime"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError\n")
    board.give_python(f"export PYTHONPATH={broken.parent}")
    with pytest.raises(PlannerError, match=r"^b \(board\): onnxruntime cannot be imported; type there: python3 -m"):
        deploy(target, ANY_PORT)
    shutil.rmtree(board.bundles / "venv")
    bare = board.home / "bare"
    bare.mkdir()
    for name in ("sh", "tar", "mkdir", "test"):
        (bare / name).symlink_to(str(shutil.which(name)))
    config = board.bin.parent / "sshd_config"
    config.write_text(config.read_text().replace("&& exec sh", f"&& export PATH={bare} && exec sh"))
    with pytest.raises(PlannerError, match=r"^b \(board\): the board must have python3 and tar, got: .*python3"):
        deploy(target, ANY_PORT)


def test_ssh_itself_may_be_missing(exported: tuple[Exported, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without ssh here, the message says so."""
    (target,) = parse_targets(["a=board"], read_deployment(exported[1]))
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(InputError, match=r"^Deploying needs ssh, which is not installed\.$"):
        deploy(target, ANY_PORT)

"""What travels to a board: Python 3.9, numpy and onnxruntime are enough, and a spoilt device folder is refused."""

import ast
import json
import shutil
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from planner.runtime.device import __main__ as program
from planner.runtime.device.addresses import resolve
from planner.runtime.device.errors import DeviceError
from planner.runtime.device.folder import LoadedSubModel, read_folder, read_token, run_self_test
from planner.runtime.device.names import EXPECTED, MANIFEST, TOKEN
from tests.helpers.common import PATIENCE_S, ROOT, Json
from tests.helpers.raw_peer import connected, request

pytest.importorskip("onnxruntime")

PACKAGE = ROOT / "planner" / "runtime" / "device"
FILES = sorted(PACKAGE.glob("*.py"))
MAY_BE_IMPORTED = set(sys.stdlib_module_names) | {"numpy", "onnxruntime"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_is_python_3_9(path: Path) -> None:
    """The grammar is that of 3.9, and annotations, which may be newer, are never evaluated."""
    tree = ast.parse(path.read_text(encoding="utf-8"), feature_version=(3, 9))
    has_annotations = any(isinstance(node, (ast.AnnAssign, ast.arg)) for node in ast.walk(tree))
    assert "from __future__ import annotations" in path.read_text(encoding="utf-8") or not has_annotations


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_it_imports_little(path: Path) -> None:
    """Modules import each other relatively, and else the standard library, numpy and onnxruntime."""
    imported = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            imported |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            imported.add(str(node.module).partition(".")[0])
    assert imported <= MAY_BE_IMPORTED


def test_it_runs_without_the_planner(tmp_path: Path) -> None:
    """Under another name, and where the planner and what it needs cannot be imported, the worker says its help."""
    shutil.copytree(PACKAGE, tmp_path / "worker", ignore=shutil.ignore_patterns("__pycache__"))
    code = """
import runpy, sys
class Hook:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("planner", "torch", "pydantic", "scipy", "onnx", "rich", "typer"):
            raise AssertionError(name)
sys.meta_path.insert(0, Hook())
runpy.run_module("worker", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", code, "--help"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "--listen HOST:PORT" in done.stdout


def test_a_missing_package_is_one_sentence(tmp_path: Path) -> None:
    """Without onnxruntime there is no traceback."""
    (tmp_path / "onnxruntime.py").write_text("raise ModuleNotFoundError('gone', name='onnxruntime')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import planner.runtime.device.__main__"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "The worker needs onnxruntime, which is not installed: pip install numpy onnxruntime.\n"


@pytest.fixture
def folder(exported: tuple[Any, Path], tmp_path: Path) -> Path:
    """Copy of a device folder of uint8 images, (1, 8, 8)."""
    source = next(path for path in sorted(exported[1].iterdir()) if path.name.startswith("00-"))
    shutil.copytree(source, tmp_path / "device")
    return tmp_path / "device"


def test_a_folder_answers_as_expected(folder: Path) -> None:
    """The self-test passes with next to no difference, and an answer has the features of the manifest."""
    read = read_folder(folder)
    sub_model = LoadedSubModel(read)
    assert run_self_test(read, sub_model) <= 1e-5
    features = np.frombuffer(sub_model(memoryview(bytes(read.image_bytes))), "<f4")
    assert features.shape == (read.num_features,)
    assert len(read_token(folder)) == 32


def change_manifest(folder: Path, **changes: Any) -> None:
    """Replace keys of a folder's manifest; None removes one."""
    data = json.loads((folder / MANIFEST).read_text()) | changes
    (folder / MANIFEST).write_text(json.dumps({key: value for key, value in data.items() if value is not None}))


def flip(path: Path, at: int) -> None:
    """Flip a bit of a byte of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 1
    path.write_bytes(content)


def hashes(folder: Path, **changes: str) -> Json:
    """Return the hashes of a folder's manifest, some replaced."""
    sha256: Json = json.loads((folder / MANIFEST).read_text())["sha256"]
    return sha256 | changes


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "flipped byte in the weights": (
        lambda folder: flip(folder / "model.onnx.data", 100),
        r"model\.onnx\.data: SHA-256 must be [0-9a-f]{12}\.\.\., got .*: the file was changed",
    ),
    "flipped byte in the worker": (lambda folder: flip(folder / "worker.pyz", 50), r"worker\.pyz: SHA-256 must be"),
    "missing weights": (lambda folder: (folder / "model.onnx.data").unlink(), r"model\.onnx\.data: cannot be read"),
    "missing manifest": (lambda folder: (folder / MANIFEST).unlink(), r"manifest\.json: cannot be read \(No such file"),
    "no JSON": (lambda folder: (folder / MANIFEST).write_text("{"), "must be the manifest of a device folder"),
    "no object": (lambda folder: (folder / MANIFEST).write_text("[3]"), "must be the manifest of a device folder"),
    "missing key": (lambda folder: change_manifest(folder, features=None), "must have the key 'features', got none"),
    "other type": (lambda folder: change_manifest(folder, features="many"), "must be the manifest of a device folder"),
    "no thread": (lambda folder: change_manifest(folder, threads=0), "must be the manifest of a device folder"),
    "short bundle": (lambda folder: change_manifest(folder, bundle="ab"), "must be the manifest of a device folder"),
    "unhashed model": (lambda folder: change_manifest(folder, sha256={}), r"sha256 must name 'model\.onnx', got \[\]"),
    "leaving the folder": (
        lambda folder: change_manifest(folder, sha256=hashes(folder, **{"../x": "0"})),
        r"files must lie in the folder, got '\.\./x'",
    ),
    "a name with a NUL": (
        lambda folder: change_manifest(folder, sha256=hashes(folder, **{"a\0b": "0"})),
        r"files must lie in the folder, got 'a\\x00b'",
    ),
}


@pytest.mark.parametrize("name", SPOILT)
def test_a_spoilt_folder_is_refused(folder: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """One sentence says what is wrong, and the worker ends with 1."""
    spoil, message = SPOILT[name]
    spoil(folder)
    with pytest.raises(DeviceError, match=message):
        read_folder(folder)
    assert program.main([str(folder), "--self-test"]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_other_answers_fail_the_self_test(folder: Path) -> None:
    """Features that differ by more than rounding are a failure, NaN among them; so are arrays of another shape."""
    read = read_folder(folder)
    sub_model = LoadedSubModel(read)
    with np.load(folder / EXPECTED) as arrays:
        images, features = arrays["images"], arrays["features"]
    largest = np.abs(features).max()
    for change in (0.01 * largest, np.nan):
        np.savez(folder / EXPECTED, images=images, features=features + change)
        with pytest.raises(DeviceError, match=r"self-test failed: answers must be within 0\.001 of those expected"):
            run_self_test(read, sub_model)
    np.savez(folder / EXPECTED, images=images[:, :, 1:], features=features)
    with pytest.raises(DeviceError, match="must hold images and features of the manifest's shapes"):
        run_self_test(read, sub_model)
    (folder / EXPECTED).write_bytes(b"PK")
    with pytest.raises(DeviceError, match="must hold expected answers"):
        run_self_test(read, sub_model)


@pytest.mark.parametrize("token", [None, "", "ab" * 31, "xy" * 32, "ä" * 64])
def test_a_token_is_64_digits(folder: Path, token: str | None) -> None:
    """A missing or malformed secret is said."""
    (folder / TOKEN).unlink()
    if token is not None:
        (folder / TOKEN).write_text(token)
    with pytest.raises(DeviceError, match="must hold the secret of the deployment, 64 hexadecimal digits"):
        read_token(folder)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_the_program_answers_and_ends_cleanly(folder: Path, tmp_path: Path, end: signal.Signals) -> None:
    """It says its address first, keeps held times, marks moments in their order, and ends without a traceback."""
    marks = tmp_path / "marks"
    command = [sys.executable, "-m", "planner.runtime.device", str(folder), "--listen", "127.0.0.1:0"]
    command += ["--hold", "send=2000,compute=5000,return=1000", "--marks", str(marks)]
    worker = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert worker.stdout is not None
    address = worker.stdout.readline().strip().removeprefix("listening on ")
    manifest = json.loads((folder / MANIFEST).read_text())
    token = bytes.fromhex((folder / TOKEN).read_text().strip())
    with connected(resolve(address)) as peer:
        peer.prove(token=token, bundle=manifest["bundle"])
        with np.load(folder / EXPECTED) as arrays:
            image, expected = arrays["images"][0], arrays["features"][0]
        peer.sock.sendall(request(9, image.tobytes()))
        _, payload = peer.read()
    worker.send_signal(end)
    _, log = worker.communicate(timeout=PATIENCE_S)
    assert worker.returncode == (130 if end == signal.SIGINT else 0), log
    assert "Traceback" not in log
    assert "self-test passed" in log
    assert np.allclose(np.frombuffer(payload[17:], "<f4"), expected, atol=1e-4)
    request_id, there, began, returned, ended, due = struct.unpack("<Qqqqqq", marks.read_bytes())
    assert request_id == 9
    assert there + 2_000_000 <= began <= returned
    assert began + 5_000_000 <= ended <= due - 1_000_000


@pytest.mark.parametrize("hold", ["link", "send", "send=", "send=-1", "send=1,pause=2", "compute=1.5"])
def test_malformed_times_to_hold_are_refused(hold: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Parts are send, compute and return, with whole microseconds."""
    with pytest.raises(SystemExit) as ended:
        program.main(["folder", "--hold", hold])
    assert ended.value.code == 2
    assert "must be PART=US, with a part of send, compute, return, got" in capsys.readouterr().err

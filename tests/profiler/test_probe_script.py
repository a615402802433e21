"""probe.py as a device runs it, beside a stub of onnxruntime and once beside the real one."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from planner.profiler.device import probe_script
from planner.schema import ProbeManifest, ProbeResult, read_document, sha256_of, write_document
from planner.schema.base import write_text
from tests.helpers.common import PATIENCE_S
from tests.helpers.timed_networks import manifest_data

SCRIPT = Path(probe_script.__file__)

# What a session does is written in its network's file: a time [s] to run, or what goes wrong.
PLAYED = """
import time
__version__ = "1.19.2"
class SessionOptions: pass
class GraphOptimizationLevel: ORT_ENABLE_EXTENDED = 1
class Input: name = "images"
class InferenceSession:
    def __init__(self, path, options, providers, disabled_optimizers):
        self.threads = options.intra_op_num_threads
        self.does = open(path).read()
        if self.does == "no room":
            raise RuntimeError("bad allocation\\nsomewhere")
    def get_inputs(self):
        return [Input()]
    def run(self, outputs, feed):
        assert feed["images"].shape == (1, 1, 8, 8)
        if self.does == "stop" and self.threads == 2:
            raise KeyboardInterrupt
        time.sleep(0.001)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A probe folder of two float32 networks, with a stub of onnxruntime."""
    data = manifest_data()
    networks = data["networks"][:2]
    for network in networks:
        del network["files"]["int8"]
        write_text(tmp_path / network["files"]["float32"]["name"], "run")
    write_document(tmp_path / "manifest.json", ProbeManifest.model_validate(data | {"networks": networks}))
    write_text(tmp_path / "weights.bin", "")
    write_text(tmp_path / "probe.py", SCRIPT.read_text())
    write_text(tmp_path / "onnxruntime.py", PLAYED)
    return tmp_path


def run(folder: Path, *args: str) -> subprocess.CompletedProcess[str]:
    """Run the folder's probe.py in the folder, for as short a time as it allows."""
    command = [sys.executable, "probe.py", "--seconds", "0", *args]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=PATIENCE_S)


def measured(folder: Path) -> ProbeResult:
    """Read latency.json as `planner probe add` does."""
    return read_document(folder / "latency.json", ProbeResult)


def test_each_network_is_timed_on_each_thread_count(folder: Path) -> None:
    """Three rounds at least, none shorter than the stub sleeps; the manifest's hash is the planner's."""
    finished = run(folder, "--threads", "1,2")
    assert finished.returncode == 0, finished.stderr
    assert "latency.json: 4 timings." in finished.stdout
    result = measured(folder)
    assert result.complete
    assert [(t.network, t.threads) for t in result.timings] == [("n01", 1), ("n02", 1), ("n01", 2), ("n02", 2)]
    for t in result.timings:
        assert len(t.rounds_us) >= 3
        assert t.runs >= 2 * len(t.rounds_us)
        assert t.median_us == sorted(t.rounds_us)[len(t.rounds_us) // 2] >= 1000
    assert result.manifest_sha256 == sha256_of(result.manifest)
    assert result.device.onnxruntime == "1.19.2"
    assert result.peak_memory_bytes > 2**20


def test_what_fails_is_reported_and_the_rest_timed(folder: Path) -> None:
    """A network that cannot be loaded is reported with the first line of the reason, and the rest is timed."""
    write_text(folder / "n02-float32.onnx", "no room")
    finished = run(folder, "--threads", "1")
    assert finished.returncode == 0, finished.stderr
    assert (
        "1 of 2 failed and are left out, the first n02 float32, 1 thread: RuntimeError: bad allocation."
        in finished.stdout
    )
    result = measured(folder)
    assert [t.network for t in result.timings] == ["n01"]
    assert [(f.network, f.reason) for f in result.failures] == [("n02", "RuntimeError: bad allocation")]
    assert result.complete


def test_stopped_it_keeps_what_it_has_and_goes_on(folder: Path) -> None:
    """After Ctrl-C the finished rounds are kept, marked incomplete, and the next run goes on from them."""
    write_text(folder / "n02-float32.onnx", "stop")
    stopped = run(folder, "--threads", "1,2")
    assert stopped.returncode == 130
    assert "Stopped. What was finished is kept" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    before = measured(folder)
    assert not before.complete
    kept = [(t.network, t.threads, len(t.rounds_us)) for t in before.timings]
    assert kept == [("n01", 1, 1), ("n02", 1, 1), ("n01", 2, 1)]
    write_text(folder / "n02-float32.onnx", "run")
    assert run(folder, "--threads", "1,2").returncode == 0
    after = measured(folder)
    assert after.complete
    assert len(after.timings) == 4
    for old, new in zip(before.timings, after.timings, strict=False):
        assert new.rounds_us[:1] == old.rounds_us


def test_a_finished_run_is_measured_anew_and_other_thread_counts_are_kept(folder: Path) -> None:
    """A run for 2 threads keeps that for 1; another run for 1 replaces it."""
    run(folder, "--threads", "1")
    first = measured(folder)
    run(folder, "--threads", "2")
    both = {(t.network, t.threads): t for t in measured(folder).timings}
    assert set(both) == {("n01", 1), ("n02", 1), ("n01", 2), ("n02", 2)}
    assert both["n01", 1] == first.timings[0]
    run(folder, "--threads", "1")
    again = {(t.network, t.threads): t for t in measured(folder).timings}
    assert again["n01", 1] != first.timings[0]
    assert again["n01", 2] == both["n01", 2]


def test_the_result_of_another_folder_is_overwritten(folder: Path) -> None:
    """An interrupted latency.json of another manifest is overwritten, and so is a damaged one."""
    run(folder, "--threads", "1")
    data = json.loads((folder / "latency.json").read_text())
    data |= {"manifest_sha256": "0" * 64, "complete": False}
    for text in (json.dumps(data), "{"):
        write_text(folder / "latency.json", text)
        assert run(folder, "--threads", "1").returncode == 0
        assert measured(folder).manifest_sha256 == sha256_of(measured(folder).manifest)
        assert all(len(t.rounds_us) == 3 for t in measured(folder).timings)


@pytest.mark.parametrize(
    ("file", "text", "message"),
    [
        ("onnxruntime.py", "import onnxruntime.core", "which is not installed: pip install numpy onnxruntime."),
        ("manifest.json", "{", "manifest.json: not a manifest of networks (Expecting"),
        ("manifest.json", "[]", "manifest.json: not a manifest of networks (list indices"),
        ("manifest.json", None, "manifest.json: cannot be read (No such file or directory); run the probe.py of a"),
        ("n01-float32.onnx", None, "n01-float32.onnx: no such file; copy the whole probe folder again."),
        ("weights.bin", None, "weights.bin: no such file; copy the whole probe folder again."),
    ],
)
def test_what_is_missing_is_named(folder: Path, file: str, text: str | None, message: str) -> None:
    """A missing onnxruntime, manifest or network file is named in one sentence."""
    (folder / file).unlink()
    if text is not None:
        write_text(folder / file, text)
    finished = run(folder)
    assert finished.returncode == 1
    assert message in finished.stderr
    assert len(finished.stderr.splitlines()) == 1


@pytest.mark.parametrize("threads", ["0", "two", ""])
def test_thread_counts_are_checked(folder: Path, threads: str) -> None:
    """A count below one, or none, is refused by name."""
    finished = run(folder, "--threads", threads)
    assert finished.returncode == 2
    assert "argument --threads: invalid thread_counts value" in finished.stderr


def test_it_opens_networks_as_the_runtime_does(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The script and the runtime open sessions with the same options."""
    onnxruntime = pytest.importorskip("onnxruntime")
    from planner.runtime.device import session

    opened: list[tuple[Any, dict[str, Any]]] = []
    monkeypatch.setattr(onnxruntime, "InferenceSession", lambda path, options, **more: opened.append((options, more)))
    probe_script.open_session(tmp_path / "network.onnx", 3)
    session.open_session(tmp_path / "network.onnx", 3)
    names = [n for n in dir(opened[0][0]) if not n.startswith("_") and not callable(getattr(opened[0][0], n))]
    assert "intra_op_num_threads" in names
    timed, runs = [({n: getattr(options, n) for n in names}, more) for options, more in opened]
    assert timed == runs

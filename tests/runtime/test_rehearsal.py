"""Rehearsals with real worker processes: answers are the bundle's, what is held is said, and everybody goes home.

Times are compared with lower bounds alone: a busy machine may be slower than planned, and never faster than what is
held.
"""

import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits

from planner.errors import InputError
from planner.executor.bundle import read_bundle
from planner.executor.evaluate import evaluate_bundle
from planner.runtime import connection
from planner.runtime.rehearsal import RehearsalOptions, prepared, rehearse
from planner.runtime.rehearsal.predicted import local_compute_us
from planner.runtime.rehearsal.work_folder import work_folder
from planner.schema import Rehearsal, read_document, write_document
from tests.helpers.common import PATIENCE_S
from tests.helpers.deployments import SmallBundle, linux_boards, make_small_bundle
from tests.helpers.namespaces import why_no_namespaces

for package in ("onnxscript", "onnxruntime", "cryptography"):
    pytest.importorskip(package)


@pytest.fixture(scope="module", autouse=True)
def _patience() -> Iterator[None]:
    """No worker that a busy machine keeps waiting is late, silent or away for too long."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepared, "_PATIENCE_US", int(1e6 * PATIENCE_S))
        # The package has a function of the module's name.
        module = importlib.import_module("planner.runtime.rehearsal.rehearse")
        patch.setattr(module, "_MAX_AWAY_S", PATIENCE_S)
        patch.setattr(module, "_CONNECT_S", PATIENCE_S)
        patch.setattr(connection, "_SILENCE_NS", int(1e9 * PATIENCE_S))
        yield


def digits_bundle(folder: Path, *precisions: Any) -> SmallBundle:
    """Return a bundle that is tested on all of the digits that it was not made from."""
    bundle = make_small_bundle(folder, linux_boards(*precisions))
    digits = load_digits()
    everything = np.arange(len(digits.target))
    train = np.load(folder / "train.npz")["images"].reshape(-1, 64)
    seen = {image.tobytes() for image in train}
    unseen = [i for i in everything if digits.images[i].astype(np.uint8).tobytes() not in seen][:540]
    images = digits.images[unseen].astype(np.uint8)
    np.savez(folder / "test.npz", images=images, labels=digits.target[unseen])
    return bundle


def count_right(accuracy: float, num_images: int) -> int:
    """Return how many images an accuracy is."""
    return round(accuracy * num_images)


def test_answers_are_those_of_evaluate(tmp_path: Path) -> None:
    """Float32: the same class on each of 270 images, so the accuracy is the evaluated one; nothing is late."""
    bundle = digits_bundle(tmp_path, "float32", "float32", "float32")
    rehearsal = rehearse(bundle.path, bundle.fleet)
    evaluation = evaluate_bundle(read_bundle(bundle.path))
    assert rehearsal.num_images == rehearsal.num_evaluated == evaluation.num_images == 270
    assert rehearsal.num_differing == rehearsal.num_unanswered == rehearsal.num_late == 0
    assert count_right(rehearsal.accuracy, 270) == count_right(evaluation.fused_accuracy, 270)
    assert [d.num_replies for d in rehearsal.devices] == [270] * len(rehearsal.devices)


def test_int8_answers_are_those_of_the_export(tmp_path: Path) -> None:
    """With int8 sub-models the accuracy is not the bundle's but the one that the export measured, to the image."""
    bundle = digits_bundle(tmp_path, "int8", "int8", "float32")
    rehearsal = rehearse(bundle.path, bundle.fleet)
    assert [d.precision for d in rehearsal.devices] == ["int8", "int8", "float32"]
    assert count_right(rehearsal.accuracy, 270) == count_right(rehearsal.exported_accuracy, 270)


@pytest.fixture(scope="module")
def rehearsed(small_bundle: SmallBundle) -> Rehearsal:
    """Rehearsal of three boards: 30 images, although the test part has 25."""
    return rehearse(small_bundle.path, small_bundle.fleet, RehearsalOptions(num_images=30))


def test_images_come_round_again(rehearsed: Rehearsal) -> None:
    """More images than the test part has are its images again."""
    assert (rehearsed.num_images, rehearsed.num_evaluated, rehearsed.num_differing) == (30, 25, 0)


def test_what_is_held_is_held_and_said(small_bundle: SmallBundle, rehearsed: Rehearsal) -> None:
    """No held step is shorter than planned; steps of 0 are real."""
    plan = read_bundle(small_bundle.path).plan
    for planned, device in zip(plan.assignments, rehearsed.devices, strict=True):
        for step, us in (
            (device.send, planned.send_us),
            (device.compute, planned.compute_us),
            (device.returned, planned.return_us),
        ):
            assert step.predicted_us == step.held_us == us
            assert step.origin == ("held" if us else "real")
            assert step.measured_us is not None
            assert step.measured_us.p10 >= us
        assert device.latency.measured_us is not None
        assert device.latency.measured_us.p10 >= planned.latency_us
    assert rehearsed.latency.predicted_us == plan.latency_us
    assert rehearsed.latency.measured_us is not None
    assert rehearsed.latency.measured_us.p10 >= max(a.latency_us for a in plan.assignments)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read from /proc")
def test_memory_is_that_of_the_workers(rehearsed: Rehearsal) -> None:
    """A worker's peak holds interpreter and libraries; the plan's part of the runtime is that of the fleet."""
    for device in rehearsed.devices:
        assert device.planned_runtime_bytes == 48 * 1024
        assert device.peak_bytes is not None
        assert device.interpreter_bytes is not None
        assert device.peak_bytes > device.interpreter_bytes > 10 * 2**20


def test_the_file_reads_back(rehearsed: Rehearsal, tmp_path: Path) -> None:
    """rehearsal.json holds everything."""
    write_document(tmp_path / "rehearsal.json", rehearsed)
    assert read_document(tmp_path / "rehearsal.json", Rehearsal) == rehearsed


def test_compute_is_predicted_by_the_table_of_the_engine(small_bundle: SmallBundle) -> None:
    """A sub-model in C is predicted by this machine's times in C, or not at all."""
    bundle = read_bundle(small_bundle.path)
    profile, a = bundle.profile, bundle.plan.assignments[0]
    in_onnx = local_compute_us(profile, a, "onnxruntime")
    assert in_onnx is not None
    assert local_compute_us(profile, a, "c") is None
    rows = [row.replace(engine="c", fixed_us=row.fixed_us + 1000) for row in profile.latency["local"]]
    both = profile.replace(latency={"local": [*profile.latency["local"], *rows]})
    assert local_compute_us(both, a, "onnxruntime") == in_onnx
    assert local_compute_us(both, a, "c") == in_onnx + 1000
    assert local_compute_us(profile.replace(latency={"local": rows}), a, "onnxruntime") is None


def test_measured_compute_is_not_held(small_bundle: SmallBundle, tmp_path: Path) -> None:
    """Compute is real and predicted by the table of kind local; links stay held. A bundle is read but once."""
    shutil.copytree(small_bundle.path, tmp_path / "bundle")
    bundle = read_bundle(tmp_path / "bundle")
    shutil.rmtree(tmp_path / "bundle" / "devices")
    rehearsal = rehearse(bundle, small_bundle.fleet, RehearsalOptions(num_images=5, measured_compute=True))
    assert rehearsal.compute == "measured"
    for device in rehearsal.devices:
        assert device.compute.origin == "real"
        assert device.compute.predicted_us is not None
        assert device.compute.held_us == 0
        assert device.compute.measured_us is not None
        assert device.network_us is not None
        assert device.compute.measured_us.p50 >= device.network_us.p50 > 0
    assert rehearsal.devices[1].send.origin == "held"
    predicted = max(d.latency.predicted_us or 0 for d in rehearsal.devices) + (rehearsal.fusion.predicted_us or 0)
    assert rehearsal.latency.predicted_us == predicted


def test_a_killed_device_is_missed_and_comes_back(small_bundle: SmallBundle) -> None:
    """No answer is lost: without the device all answers are those of the bundle; later it takes part again."""
    options = RehearsalOptions(num_images=60, kills=("b@10",))
    rehearsal = rehearse(small_bundle.path, small_bundle.fleet, options)
    (outage,) = rehearsal.outages
    assert (outage.device, outage.killed_before) == ("b", 10)
    assert outage.restarted_before is not None
    assert 10 < outage.restarted_before <= 60
    assert outage.back_s is not None
    # From the kill until it was back: all of them are answered without it, and each as the bundle answers without it.
    assert outage.num_without >= outage.restarted_before - 10
    assert rehearsal.num_images >= 60
    assert rehearsal.num_unanswered == rehearsal.num_differing == 0
    replies = {d.device: d.num_replies for d in rehearsal.devices}
    assert replies["a"] == replies["c"] == rehearsal.num_images
    assert replies["b"] == rehearsal.num_images - outage.num_without


@pytest.mark.parametrize(
    ("kills", "message"),
    [
        (("b",), r"`kill`: must be NAME@IMAGE, such as a@100, got 'b'"),
        (("b@0",), "must be NAME@IMAGE"),
        (("x@5",), "must name a device that the plan uses, got 'x'"),
        (("b@31",), "must name one of the 30 images, got image 31 for b"),
        (("b@3", "b@20"), "b is away from image 3 to 53, so it cannot be killed at image 20"),
        (("b@3", "b@3"), "can be killed once at the same image"),
    ],
)
def test_impossible_kills_are_refused(small_bundle: SmallBundle, kills: tuple[str, ...], message: str) -> None:
    """One sentence names the wish and what must hold, before anything is started."""
    with pytest.raises(InputError, match=message):
        rehearse(small_bundle.path, small_bundle.fleet, RehearsalOptions(num_images=30, kills=kills))


def test_no_image_is_refused(small_bundle: SmallBundle) -> None:
    """At least one image must be answered."""
    with pytest.raises(InputError, match="`num_images`: must be at least 1, got 0"):
        rehearse(small_bundle.path, small_bundle.fleet, RehearsalOptions(num_images=0))


def is_running(pid: int) -> bool:
    """Return whether a process runs; one that has ended may wait for its parent to notice."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_workers_end_with_the_rehearsal(
    small_bundle: SmallBundle, tmp_path: Path, end: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However the command ends, no worker stays, nor do temporary files: those of one that is killed until the next."""
    fleet = tmp_path / "devices.json"
    write_document(fleet, small_bundle.fleet)
    command = [str(Path(sys.executable).with_name("planner")), "rehearse", str(small_bundle.path)]
    running = subprocess.Popen(
        [*command, "--devices", str(fleet), "--images", "1000000"],
        env=os.environ | {"TMPDIR": str(tmp_path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        workers = wait_for_children(running.pid, 3)
        running.send_signal(end)
        assert running.wait(PATIENCE_S) == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[end]
    finally:
        running.kill()
        running.wait()
    until = time.monotonic() + PATIENCE_S
    while any(map(is_running, workers)) and time.monotonic() < until:
        time.sleep(0.05)
    assert not any(map(is_running, workers))
    left = list(tmp_path.glob("rehearsal-*"))
    assert len(left) == (end is signal.SIGKILL)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with work_folder() as first, work_folder() as second:
        # The second leaves the first alone.
        assert set(tmp_path.glob("rehearsal-*")) == {first, second}
    assert list(tmp_path.glob("rehearsal-*")) == []


def wait_for_children(pid: int, number: int) -> list[int]:
    """Return the children of a process when it has so many."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        children = [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
        if len(children) >= number:
            return children
        time.sleep(0.05)
    raise AssertionError(f"no {number} workers were started")


WIFI = {"bandwidth_mbps": 8.0, "latency_ms": 1.0, "shared": True}


def becomes_free(prefix: str) -> bool:
    """Return whether links of this name go: the kernel ends a namespace some time after its last process."""
    for _ in range(200):
        if prefix not in subprocess.run(["ip", "link"], capture_output=True, text=True).stdout:
            return True
        time.sleep(0.1)
    return False


@pytest.mark.skipif(bool(why_no_namespaces()), reason=why_no_namespaces() or "possible")
@pytest.mark.parametrize("shared", [False, True])
def test_namespaces_carry_real_messages(small_bundle: SmallBundle, tmp_path: Path, shared: bool) -> None:
    """Over virtual links, encrypted, answers are the bundle's; only latency is held, and nothing stays behind.

    An image and the 48 bytes or so of features fit into the filters' buckets, so no lower bound but the latency.
    """
    bundle = small_bundle
    if shared:
        boards = linux_boards("float32", "float32", "float32")
        bundle = make_small_bundle(tmp_path, boards.replace(default_link=WIFI))
    rehearsal = rehearse(bundle.path, bundle.fleet, RehearsalOptions(num_images=10, namespaces=True))
    assert rehearsal.links == "namespaces"
    assert rehearsal.num_shared_media == int(shared)
    assert rehearsal.num_differing == rehearsal.num_unanswered == 0
    assert [d.num_replies for d in rehearsal.devices] == [10, 10, 10]
    for device in rehearsal.devices[1:]:
        for step in (device.send, device.returned):
            assert step.held_us == 1000
            assert step.origin == "part"
            assert step.measured_us is not None
            assert step.measured_us.p10 >= 1000
    assert becomes_free("rh" + str(os.getpid()))


def test_namespaces_are_refused_unless_root(small_bundle: SmallBundle, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence says who may make them, and what happens without."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(InputError, match="`namespaces`: network namespaces must be made as root on Linux"):
        rehearse(small_bundle.path, small_bundle.fleet, RehearsalOptions(num_images=1, namespaces=True))

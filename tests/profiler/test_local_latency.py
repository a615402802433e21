"""Timing of this machine: in ONNX Runtime where it is installed, on images of bytes; in torch where it is not."""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from typing import Any

import pytest

from planner.network.vit import Shape, VisionTransformer
from planner.profiler.device import local_latency
from tests.helpers.plain_vit import random_model

SHAPE = Shape(8, 2, 1, 10, embed_dim=16, head_dim=8, num_heads=(2, 1), hidden_dim=(16, 8))


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time for no longer than a moment."""
    monkeypatch.setattr(local_latency, "_ROUNDS", 2)
    monkeypatch.setattr(local_latency, "_SECONDS_PER_ROUND", 0.001)


@pytest.fixture
def models() -> list[VisionTransformer]:
    """Two networks of different sizes."""
    return [random_model(SHAPE).eval(), random_model(Shape(8, 2, 1, 10, 16, 8, (0, 0), (0, 8))).eval()]


@pytest.mark.parametrize("engine", ["onnxruntime", "torch"])
def test_every_network_is_timed(models: list[VisionTransformer], engine: local_latency.TimingEngine) -> None:
    """Each engine times each network, and says how far it is: two made ready, two rounds of two."""
    if engine == "onnxruntime":
        pytest.importorskip("onnxscript")
    steps = list[tuple[int, int]]()
    times = local_latency.shortest_times_us(models, engine, lambda done, total: steps.append((done, total)))
    assert len(times) == 2
    assert 0 < min(times) <= max(times) < 1e6
    assert steps == [(i, 6) for i in range(1, 7)]


def test_onnx_runtime_runs_images_of_bytes(models: list[VisionTransformer], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed is a graph as devices get it: one image of bytes, torch's features."""
    pytest.importorskip("onnxscript")
    from planner.profiler.device import probe_script

    seen = list[Any]()

    def watched(path: Any, threads: int) -> Any:
        session = original(path, threads)
        (image,) = session.get_inputs()
        seen.append((image.type, image.shape, threads))
        return session

    original = probe_script.open_session
    monkeypatch.setattr(probe_script, "open_session", watched)
    local_latency.shortest_times_us(models[:1], "onnxruntime")
    assert seen == [("tensor(uint8)", [1, 1, 8, 8], 1)]


def test_torch_stands_in_where_a_package_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without any one of the packages that export and run networks, torch is timed."""
    find_spec = importlib.util.find_spec

    def without(missing: str, name: str) -> ModuleSpec | None:
        return None if name == missing else find_spec("sys")

    for missing in ("onnx", "onnxscript", "onnxruntime"):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, missing=missing: without(missing, name))
        assert local_latency.timing_engine() == "torch"
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: without("none", name))
    assert local_latency.timing_engine() == "onnxruntime"


def test_the_source_names_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row says what was timed, and has the error on networks that were held out."""
    monkeypatch.setattr(local_latency, "timing_engine", lambda: "torch")
    rows = local_latency.measure_local_latency(SHAPE, [16, 8], seed=0)
    assert [row.embed_dim for row in rows] == [16, 8]
    torch: Any = sys.modules["torch"]
    source = f"measured: torch {torch.__version__}, 1 thread, 24 networks, the shortest of 2 rounds"
    assert {row.source for row in rows} == {source}
    assert all(row.mape is not None and row.mape >= 0 for row in rows)

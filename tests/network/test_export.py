"""ONNX files: the features of torch at any batch size, written whole or not at all."""

import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from planner.arrays import Floats
from planner.errors import InputError
from planner.network.export import data_path, export_onnx, quantise_int8
from planner.network.vit import Shape, VisionTransformer
from tests.helpers.plain_vit import random_images, random_model

SHAPE = Shape(8, 2, 1, 10, embed_dim=48, head_dim=16, num_heads=(4, 2, 0, 1), hidden_dim=(256, 8, 24, 0))


def run(path: Path, images: Tensor) -> Floats:
    """Return the features that ONNX Runtime gives for images."""
    ort = pytest.importorskip("onnxruntime")
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    features: Floats = session.run(["features"], {"images": images.numpy()})[0]
    return features


def size(path: Path) -> int:
    """Return the bytes of a graph and of its weights."""
    return path.stat().st_size + data_path(path).stat().st_size


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionTransformer, Path]:
    """A model with random weights and its ONNX file."""
    pytest.importorskip("onnxscript")
    path = tmp_path_factory.mktemp("export") / "model.onnx"
    model = random_model(SHAPE).eval()
    export_onnx(model, path)
    return model, path


@pytest.mark.parametrize("batch", [1, 3])
def test_the_file_gives_torchs_features(exported: tuple[VisionTransformer, Path], batch: int) -> None:
    """ONNX Runtime and torch agree to 1e-5 of the features' scale, also at another batch size than the example's."""
    model, path = exported
    images = random_images(SHAPE, batch)
    with torch.no_grad():
        expected = model.features(images).numpy()
    assert np.abs(run(path, images) - expected).max() <= 1e-5 * np.abs(expected).max()


def test_int8_is_smaller_and_close(exported: tuple[VisionTransformer, Path], tmp_path: Path) -> None:
    """Int8 files are less than half as large, and their features point where the float32 ones do."""
    _, path = exported
    quantise_int8(path, tmp_path / "int8.onnx")
    assert size(tmp_path / "int8.onnx") < size(path) / 2
    images = random_images(SHAPE, 4)
    got, expected = run(tmp_path / "int8.onnx", images), run(path, images)
    cosine = (got * expected).sum(1) / np.linalg.norm(got, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.95


def test_exporting_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Warnings and log lines of the exporter are suppressed."""
    pytest.importorskip("onnxscript")
    export_onnx(random_model(Shape(4, 2, 1, 3, 8, 4, (1,), (4,))), tmp_path / "model.onnx")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("missing", ["onnx", "onnxscript"])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str) -> None:
    """Without the extra, the message says what to install, and no file is written."""
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(
        InputError, match=rf"need {missing}, which is not installed: pip install 'vit-planner\[deploy\]'"
    ):
        export_onnx(random_model(Shape(4, 2, 1, 3, 8, 4, (1,), (4,))), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


def test_there_must_be_a_file_to_quantise(tmp_path: Path) -> None:
    """A missing source file is an input error."""
    pytest.importorskip("onnxruntime")
    with pytest.raises(InputError, match=r"absent\.onnx: must be an ONNX file to quantise, got none"):
        quantise_int8(tmp_path / "absent.onnx", tmp_path / "int8.onnx")


def test_weights_lie_beside_a_small_graph(exported: tuple[VisionTransformer, Path]) -> None:
    """Only tensors below 4 KiB stay in the graph, and it holds no traces of the machine that made it."""
    onnx = pytest.importorskip("onnx")
    _, path = exported
    assert data_path(path) == path.with_name("model.onnx.data")
    proto = onnx.load(path, load_external_data=False)
    inside = [len(t.raw_data) for t in proto.graph.initializer if t.data_location != t.EXTERNAL]
    assert max(inside) < 4096
    assert not any(node.metadata_props or node.doc_string for node in proto.graph.node)
    assert {node.domain for node in proto.graph.node} == {""}


def test_a_file_that_cannot_be_written_leaves_no_graph(
    exported: tuple[VisionTransformer, Path], tmp_path: Path
) -> None:
    """When the weights cannot be written, the old graph is removed, as it would read other weights."""
    model, _ = exported
    (tmp_path / "model.onnx").write_text("old")
    (tmp_path / "model.onnx.data").mkdir()
    with pytest.raises(InputError, match=r"model\.onnx\.data: cannot be written"):
        export_onnx(model, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()


def test_ctrl_c_waits_for_the_exporter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in its middle, the exporter would fail of itself; no graph is written, and Ctrl-C is as before."""
    finished = []

    def export(*_: object, **__: object) -> None:
        signal.raise_signal(signal.SIGINT)
        finished.append(True)

    monkeypatch.setattr(torch.onnx, "export", export)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        export_onnx(random_model(SHAPE), tmp_path / "model.onnx")
    assert finished
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGINT) is before

"""Sessions on a device: the features of torch, plain messages for bad files, and no heavy imports."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from planner.network.export import data_path, export_onnx, quantise_int8
from planner.network.vit import Shape, VisionTransformer
from tests.helpers.common import ROOT
from tests.helpers.plain_vit import random_images, random_model

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")

from planner.runtime.device.errors import DeviceError
from planner.runtime.device.session import open_session

SHAPE = Shape(8, 2, 1, 3, embed_dim=32, head_dim=8, num_heads=(2, 0), hidden_dim=(40, 8))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[VisionTransformer, Path]:
    """A model with random weights and its ONNX file."""
    model, path = random_model(SHAPE), tmp_path_factory.mktemp("session") / "model.onnx"
    export_onnx(model, path)
    return model, path


@pytest.mark.parametrize("threads", [1, 2])
def test_a_session_gives_torchs_features(exported: tuple[VisionTransformer, Path], threads: int) -> None:
    """Features of two images agree with torch's to 1e-5 of their scale, again in a second run."""
    model, path = exported
    images = random_images(SHAPE, 2)
    session = open_session(path, threads)
    with torch.no_grad():
        expected = model.features(images).numpy()
    for _ in range(2):
        (features,) = session.run(["features"], {"images": images.numpy()})
        assert np.abs(features - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_session_runs_int8(exported: tuple[VisionTransformer, Path], tmp_path: Path) -> None:
    """An int8 file opens like any other."""
    quantise_int8(exported[1], tmp_path / "int8.onnx")
    (features,) = open_session(tmp_path / "int8.onnx").run(None, {"images": random_images(SHAPE, 1).numpy()})
    assert features.shape == (1, 32)


def test_a_missing_file_is_bad_input(tmp_path: Path) -> None:
    """The message names the file."""
    with pytest.raises(DeviceError, match=r"absent\.onnx: must be an ONNX file with its weights beside it \(.+\)"):
        open_session(tmp_path / "absent.onnx")


def test_a_damaged_file_is_bad_input(tmp_path: Path) -> None:
    """A file that is not ONNX is refused."""
    (tmp_path / "model.onnx").write_text("not ONNX")
    with pytest.raises(DeviceError, match=r"model\.onnx: must be an ONNX file with its weights beside it \(.+\)"):
        open_session(tmp_path / "model.onnx")


def test_missing_weights_are_bad_input(exported: tuple[VisionTransformer, Path], tmp_path: Path) -> None:
    """A graph that was moved without its weights is refused."""
    _, path = exported
    (tmp_path / "model.onnx").write_bytes(path.read_bytes())
    assert data_path(path).stat().st_size > 0
    with pytest.raises(DeviceError, match=r"with its weights beside it \(.*model\.onnx\.data"):
        open_session(tmp_path / "model.onnx")


def test_a_device_needs_neither_torch_nor_pydantic() -> None:
    """Opening sessions imports ONNX Runtime and numpy, but not torch or pydantic."""
    code = "import sys, planner.runtime.device.session; print(sorted({'torch', 'pydantic', 'onnx'} & set(sys.modules)))"
    root = ROOT
    done = subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"

"""A sub-model as ONNX files: float32, and int8 made from it.

The graph takes `images` (B, channels, H, W) and returns `features` (B, E); B is free.
"""

import importlib
import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from planner.errors import InputError
from planner.network.vit import VisionTransformer
from planner.schema.base import write_bytes

INPUT, OUTPUT = "images", "features"


def export_onnx(model: VisionTransformer, path: Path) -> None:
    """Write a network as a float32 ONNX file that returns its features.

    Raises:
        InputError: If onnx and onnxscript are not installed, or the file cannot be written.
    """
    for name in ("onnx", "onnxscript"):
        _needed(name)
    s = model.shape
    # Of a batch of one, the exporter would make a constant.
    images = torch.zeros(2, s.in_channels, s.image_size, s.image_size)
    with _quiet():
        program = torch.onnx.export(
            _Features(model).eval(),
            (images,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    write_bytes(path, program.model_proto.SerializeToString())


def quantise_int8(source: Path, target: Path) -> None:
    """Write an ONNX file with the weights of its matrix products in int8; activations are quantised as it runs.

    Raises:
        InputError: If onnx and onnxruntime are not installed, or a file cannot be read or written.
    """
    _needed("onnx")
    _needed("onnxruntime")
    if not source.is_file():
        raise InputError(f"{source}: must be an ONNX file to quantise, got none; export the network first.")
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        # Without it shapes stay unknown, and constants unfolded.
        quant_pre_process(source, prepared)
        quantize_dynamic(prepared, quantised, weight_type=QuantType.QInt8)
        content = quantised.read_bytes()
    write_bytes(target, content)


class _Features(nn.Module):
    """A network whose forward pass ends at the features."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, E)."""
        return self.model.features(images)


def _needed(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"ONNX files need {name}, which is not installed: pip install 'vit-planner[deploy]'."
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter and the quantiser log and warn of: nothing that a user could act on."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

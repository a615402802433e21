"""Export of a sub-model to ONNX: float32, and int8 quantised from it.

The graph takes `images` (B, channels, H, W) and returns `features` (B, E); B is free. Only operators of the
ONNX standard are in it, and attention is written out in as few of them as it takes.

Weights lie beside the graph, in `NAME.onnx.data`: ONNX Runtime maps that file and lets go of each tensor once it has
packed it for its kernels. With weights inside the graph it would hold a second copy at its peak.
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

_OPSET = 20
# Smaller tensors stay in the graph: a mapped one takes a page of memory, if not two.
_MIN_EXTERNAL_BYTES = 4096
_PAGE_BYTES = 4096


def export_onnx(model: VisionTransformer, path: Path) -> None:
    """Write a float32 ONNX graph that returns a network's features, and its weights to `data_path(path)`.

    Raises:
        InputError: If onnx and onnxscript are not installed, or a file cannot be written.
    """
    for name in ("onnx", "onnxscript"):
        _require(name)
    s = model.shape
    # The exporter would take a batch of one for a constant.
    images = torch.zeros(2, s.in_channels, s.image_size, s.image_size)
    with _quiet():
        program = torch.onnx.export(
            _Features(model).eval(),
            (images,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=_OPSET,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            custom_translation_table={torch.ops.aten.scaled_dot_product_attention.default: _attention},
            external_data=False,
            verbose=False,
        )
    assert program is not None
    _write(program.model_proto, path)


def quantise_int8(source: Path, target: Path) -> None:
    """Write an ONNX file with the weights of its matrix products in int8 (dynamic quantisation of activations).

    Raises:
        InputError: If onnx and onnxruntime are not installed, or a file cannot be read or written.
    """
    onnx = _require("onnx")
    _require("onnxruntime")
    if not source.is_file():
        raise InputError(f"{source}: must be an ONNX file to quantise, got none; export the network first.")
    from onnxruntime.quantization import QuantType, quant_pre_process, quantize_dynamic

    with tempfile.TemporaryDirectory() as folder, _quiet():
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        # Without it, shapes stay unknown and constants unfolded.
        quant_pre_process(source, prepared)
        # The patch embedding stays as it is: older runtimes know no integer convolution, and it is no faster.
        quantize_dynamic(prepared, quantised, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul", "Gemm"])
        proto = onnx.load(quantised)
    _write(proto, target)


def data_path(path: Path) -> Path:
    """Return the path of the weights of a graph's file: both are to be moved together."""
    return path.with_name(f"{path.name}.data")


class _Features(nn.Module):
    """Network whose forward pass ends at the features."""

    def __init__(self, model: VisionTransformer) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Return features (B, E)."""
        return self.model.features(images)


def _attention(
    query: Any, key: Any, value: Any, mask: Any = None, dropout: float = 0.0, is_causal: bool = False, **_: Any
) -> Any:
    """Return softmax(Q K^T / sqrt(hd)) V, (B, h, N, hd) each; the network has neither mask nor dropout."""
    from onnxscript import opset20 as op

    scaled = op.Mul(query, op.Constant(value_float=query.shape[-1] ** -0.5))
    scores = op.MatMul(scaled, op.Transpose(key, perm=[0, 1, 3, 2]))  # (B, h, N, N)
    return op.MatMul(op.Softmax(scores, axis=-1), value)


def _write(proto: Any, path: Path) -> None:
    """Write a graph and beside it its large tensors."""
    _strip(proto)
    data = bytearray()
    for tensor in proto.graph.initializer:
        content = tensor.raw_data
        if len(content) < _MIN_EXTERNAL_BYTES:
            continue
        data.extend(bytes(-len(data) % _PAGE_BYTES))
        entry = {"location": data_path(path).name, "offset": len(data), "length": len(content)}
        data.extend(content)
        tensor.ClearField("raw_data")
        tensor.data_location = tensor.EXTERNAL
        for key, value in entry.items():
            tensor.external_data.add(key=key, value=str(value))
    # The old graph goes first and the new one comes last: where there is a graph, its weights are whole.
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}).") from None
    write_bytes(data_path(path), bytes(data))
    write_bytes(path, proto.SerializeToString())


def _strip(proto: Any) -> None:
    """Remove the origin of each node and the shapes that ONNX Runtime infers itself: most bytes of a small graph."""
    graph = proto.graph
    del graph.value_info[:]
    for part in (proto, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]


def _require(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise InputError(
            f"ONNX files need {name}, which is not installed: pip install 'vit-planner[deploy]'."
        ) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log and the warnings of exporter and quantiser: a user can act on none of them."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)

"""Export of a sub-model to ONNX: float32, and int8 quantised from it.

The graph takes `images` (B, channels, H, W) and returns `features` (B, E). Either images are normalised and B is free,
or they are pixels as they are stored, which the graph normalises itself, and B is one: devices run the latter. Only
operators of the ONNX standard are in it, and attention is written out in as few of them as it takes.

Weights lie beside the graph, in `NAME.onnx.data`: ONNX Runtime maps that file and lets go of each tensor once it has
packed it for its kernels. With weights inside the graph it would hold a second copy at its peak.
"""

import importlib
import logging
import signal
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from planner.errors import InputError
from planner.network.vit import VisionTransformer
from planner.schema import ImageInput, InputDtype
from planner.schema.base import write_bytes

INPUT, OUTPUT = "images", "features"

OPSET, MAX_IR_VERSION = 20, 10

_TORCH_DTYPES: dict[InputDtype, torch.dtype] = {
    "uint8": torch.uint8,
    "float16": torch.float16,
    "float32": torch.float32,
}
# Smaller tensors stay in the graph: a mapped one takes a page of memory, if not two.
_MIN_EXTERNAL_BYTES = 4096
_PAGE_BYTES = 4096


def export_onnx(model: VisionTransformer, path: Path, image: ImageInput | None = None) -> None:
    """Write a float32 ONNX graph that returns a network's features, and its weights to `data_path(path)`.

    Args:
        model: Network to export.
        path: File of the graph.
        image: Pixels that the graph takes, one image at a time; normalised images in batches of any size if None.

    Raises:
        InputError: If onnx and onnxscript are not installed, or a file cannot be written.
    """
    for name in ("onnx", "onnxscript"):
        _require(name)
    s = model.shape
    features: nn.Module
    if image is None:
        # The exporter would take a batch of one for a constant.
        images = torch.zeros(2, s.in_channels, *s.image_sides)
        features, sizes = _Features(model), ({0: torch.export.Dim("batch")},)
    else:
        images = torch.zeros(1, *image.shape, dtype=_TORCH_DTYPES[image.dtype])
        features, sizes = _FeaturesOfPixels(model, image), None
    with _quiet(), _uninterrupted():
        program = torch.onnx.export(
            features.eval(),
            (images,),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=sizes,
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

    with tempfile.TemporaryDirectory() as folder, _quiet(), _uninterrupted():
        prepared, quantised = Path(folder, "prepared.onnx"), Path(folder, "int8.onnx")
        # Without it, shapes stay unknown and constants unfolded.
        quant_pre_process(source, prepared)
        # The patch embedding stays as it is: older runtimes know no integer convolution, and it is no faster.
        # With a scale for each column: those of a sub-model refitted by least squares differ much, and with one for all
        # of a matrix, features were two to three times as far off.
        quantize_dynamic(
            prepared,
            quantised,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["MatMul", "Gemm"],
        )
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


class _FeaturesOfPixels(_Features):
    """Network whose forward pass begins at pixels as they are stored, (B, ch, H, W) of any type."""

    factor: Tensor  # (1, ch, 1, 1)
    offset: Tensor  # (1, ch, 1, 1)

    def __init__(self, model: VisionTransformer, image: ImageInput) -> None:
        super().__init__(model)
        p = image.preprocessing
        mean, std = (torch.tensor(values, dtype=torch.float64).view(1, -1, 1, 1) for values in (p.mean, p.std))
        # (pixel * scale - mean) / std, with one operator less for a device to run.
        self.register_buffer("factor", (p.scale / std).float())
        self.register_buffer("offset", (mean / std).float())

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.float() * self.factor - self.offset)


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
    # Older runtimes read no newer one.
    proto.ir_version = min(proto.ir_version, MAX_IR_VERSION)
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
    """Remove what no runtime needs.

    The origin of each node and the shapes that ONNX Runtime infers itself are most bytes of a small graph; versions of
    operator sets that no node uses are refused by older runtimes.
    """
    graph = proto.graph
    used = {node.domain for node in graph.node}
    kept = [operators for operators in proto.opset_import if operators.domain in used]
    del proto.opset_import[:]
    proto.opset_import.extend(kept)
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


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back to the end: the exporter imports as it goes, and fails of modules that it then half knows."""
    before = signal.getsignal(signal.SIGINT)
    if before is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    noted: list[int] = []
    signal.signal(signal.SIGINT, lambda number, _: noted.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if noted:
        signal.raise_signal(signal.SIGINT)

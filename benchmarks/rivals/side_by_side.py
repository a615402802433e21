"""Latency of networks of all kinds in ONNX Runtime on this machine: one thread, one image, in the same rounds.

Each network is opened with the settings of the planner's runtime, and with all of ONNX Runtime's optimisations, which
suit convolutions better; the faster counts. Its time is that of its shortest run in all rounds: other load on the
machine makes runs longer, and none shorter. Times do not depend on the values of weights, which are random.
"""

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.rivals.networks import ConvNet, ConvShape
from planner.network.export import INPUT, MAX_IR_VERSION, OPSET, OUTPUT, export_onnx
from planner.network.fusion import Fusion
from planner.network.vit import Shape, VisionTransformer
from planner.profiler.device.probe_script import open_session, time_us


@dataclass(frozen=True)
class JoinShape:
    """Sizes of what makes logits of features: a linear layer, or a fusion where there are hidden units."""

    num_features: tuple[int, ...]
    hidden: int
    num_classes: int


TimedShape: TypeAlias = Shape | ConvShape | JoinShape


def times_us(shapes: Sequence[TimedShape], num_rounds: int) -> list[float]:
    """Return the time of each network [us]: of one pass, where it is a spiking one with a ReLU as its neurons."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = [_sessions(shape, Path(folder, f"{i}.onnx")) for i, shape in enumerate(shapes)]
        shortest = [float("inf")] * len(shapes)
        for _ in range(num_rounds):
            for i, shape in enumerate(shapes):
                inputs = np.random.default_rng(0).standard_normal((1, *_input_shape(shape)), dtype=np.float32)
                shortest[i] = min(shortest[i], *(time_us(session, inputs)[0] for session in sessions[i]))
    return shortest


def _input_shape(shape: TimedShape) -> tuple[int, ...]:
    if isinstance(shape, JoinShape):
        return (sum(shape.num_features),)
    return (shape.in_channels, *shape.image_sides)


def _sessions(shape: TimedShape, path: Path) -> list[Any]:
    """Return the network opened with both settings."""
    import onnxruntime

    if isinstance(shape, Shape):
        export_onnx(VisionTransformer(shape).eval(), path)
    else:
        _export(_module(shape), _input_shape(shape), path)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    everything = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return [open_session(path, 1), everything]


class _Features(nn.Module):
    """Network whose forward pass ends at the features."""

    def __init__(self, network: ConvNet) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network.features(images)


def _module(shape: ConvShape | JoinShape) -> nn.Module:
    if isinstance(shape, ConvShape):
        return _Features(ConvNet(shape))
    if shape.hidden:
        return Fusion(shape.num_features, shape.hidden, shape.num_classes)
    return nn.Linear(sum(shape.num_features), shape.num_classes)


def _export(module: nn.Module, input_shape: tuple[int, ...], path: Path) -> None:
    """Write a module's graph, for batches of any size as those of ViTs."""
    with warnings.catch_warnings():
        # The exporter's own.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            module.eval(),
            # The exporter would take a batch of one for a constant.
            (torch.zeros(2, *input_shape),),
            input_names=[INPUT],
            output_names=[OUTPUT],
            opset_version=OPSET,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.model_proto.ir_version = min(program.model_proto.ir_version, MAX_IR_VERSION)
    path.write_bytes(program.model_proto.SerializeToString())

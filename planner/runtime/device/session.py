"""ONNX Runtime session of a sub-model on a device, with settings that keep its peak memory near the predicted one.

Differences from ONNX Runtime's defaults, with reasons (docs/memory.md has the measurements):
    enable_mem_pattern   off: it allocates a second pool for tensors that already have memory from the first run. A
                         network of less than a MiB takes a tenth longer without it, larger ones as long as before.
    BiasGeluFusion       off: the fused kernel needs a third buffer as large as the hidden channels, and saves no time.
    enable_mem_reuse     off: a tensor's memory then returns to the arena after its last reader, as the profile counts
                         it. With reuse it stays with tensors of the same shape; the measured peak was the same.
    optimisation level   extended: the level above arranges tensors for one make of processor.
Weights are packed for the kernels, as by default: a run without packing takes some 10 % longer and saves little.
"""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from .errors import DeviceError


def open_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Return a session that runs an ONNX file on the CPU.

    Args:
        path: File of the graph; the file of its weights is beside it.
        threads: Number of threads for one image.

    Raises:
        DeviceError: If the file or its weights are missing or damaged.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        return onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=["BiasGeluFusion"]
        )
    # ONNX Runtime's exceptions have no common base but Exception.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise DeviceError(f"{path}: must be an ONNX file with its weights beside it ({reason}).") from None

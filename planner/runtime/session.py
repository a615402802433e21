"""How a device opens a sub-model in ONNX Runtime: with settings that keep its peak memory near what is counted.

Two defaults are turned off. With `enable_mem_reuse` a tensor's buffer is kept for the next tensor of the same shape, as
long as there is one: every block's buffers then live side by side, instead of the largest block's alone. With
`enable_mem_pattern` a second pool is made for what the first run has already got memory for. The graph optimisations
stop before those that lay tensors out for one make of processor, so that memory is the same on all. Everything else is
ONNX Runtime's default: weights are packed for the kernels (a run without takes 7 to 20 % longer), tensors come
from an arena. docs/memory.md has the measurements.

Imports nothing but ONNX Runtime, so that a device needs no more.
"""

from pathlib import Path

import onnxruntime

from planner.errors import InputError


def open_session(path: Path, threads: int = 1) -> onnxruntime.InferenceSession:
    """Return a session that runs an ONNX file on the CPU.

    Args:
        path: The graph; the file of its weights lies beside it.
        threads: That work on one image.

    Raises:
        InputError: If the file is missing, damaged, or its weights are.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.enable_mem_reuse = False
    options.enable_mem_pattern = False
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    try:
        return onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"], disabled_optimizers=["BiasGeluFusion"]
        )
    # What ONNX Runtime raises has no base but Exception.
    except Exception as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path}: must be an ONNX file with its weights beside it ({reason}).") from None

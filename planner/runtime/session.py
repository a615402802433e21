"""How a device opens a sub-model in ONNX Runtime: with settings that keep its peak memory near what is counted.

What differs from ONNX Runtime's defaults, and why (docs/memory.md has the measurements):
    enable_mem_pattern   off: it makes a second pool for what the first run has already got memory for. A network of
                         less than a MiB takes a tenth longer without it, larger ones as long as before.
    BiasGeluFusion       off: the fused kernel needs a third buffer as large as the hidden channels, and saves no time.
    enable_mem_reuse     off: a tensor's memory then goes back to the arena behind its last reader, as the profile
                         counts it. On it lives on in tensors of the same shape; the peak measured was the same.
    optimisation level   extended: what comes after lays tensors out for one make of processor.
Weights are packed for the kernels, as by default: a run without takes some 10 % longer and saves little.

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

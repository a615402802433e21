"""The peak memory of sub-models in ONNX Runtime, predicted beside measured: `python -m benchmarks.memory`."""

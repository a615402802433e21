"""Predicted and measured peak memory of sub-models in ONNX Runtime: `python -m benchmarks.memory`."""

"""The profiler: importance, counts, memory, latency and accuracy of a model."""

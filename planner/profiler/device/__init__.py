"""Latency of a device: probes that are timed there, and the model fitted to their times."""

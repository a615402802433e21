"""Benchmark of importance: methods of measuring it, and groupings of channels."""

"""Plan, prune and fuse Vision Transformers over fleets of edge devices."""

__version__ = "0.1.0"

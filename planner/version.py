"""The version of the package: a module of its own, which whoever writes it into a file can import."""

__version__ = "0.1.0"

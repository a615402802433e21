"""Errors of the worker, which users of a board read."""


class DeviceError(Exception):
    """A problem that the user can solve, described in one sentence."""

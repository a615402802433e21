"""Probe folders that were begun: the files of an interrupted run are no others."""

from pathlib import Path

import pytest

from planner.errors import InputError
from planner.profiler.device.probe_folder import check_folder


def test_what_an_interrupted_run_leaves_is_written_over(tmp_path: Path) -> None:
    """Networks, numbers, script and files that were not whole are accepted; a manifest or anything else is not."""
    for name in ("n01-float32.onnx", "weights.bin", "probe.py", ".n02-int8.onnx.0a1b_xyz", ".manifest.json.abcdefgh"):
        (tmp_path / name).touch()
    check_folder(tmp_path)
    for name in ("manifest.json", "n03.txt", ".hidden"):
        (tmp_path / name).touch()
        with pytest.raises(InputError, match=rf"must be a new or empty folder, got one that holds '{name}'"):
            check_folder(tmp_path)
        (tmp_path / name).unlink()

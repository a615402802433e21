"""Bundles of a few seconds and their deployments, made once for all tests of the runtime."""

from pathlib import Path

import pytest

from planner.runtime.export import export_bundle
from planner.runtime.export_folders import Exported
from tests.helpers.deployments import SmallBundle, linux_boards, make_small_bundle


@pytest.fixture(scope="session")
def small_bundle(tmp_path_factory: pytest.TempPathFactory) -> SmallBundle:
    """Bundle of three float32 sub-models for images of uint8."""
    return make_small_bundle(tmp_path_factory.mktemp("small"), linux_boards("float32", "float32", "float32"))


@pytest.fixture(scope="session")
def exported(small_bundle: SmallBundle, tmp_path_factory: pytest.TempPathFactory) -> tuple[Exported, Path]:
    """Deployment of that bundle: not to be changed, but copied."""
    for package in ("onnxscript", "onnxruntime", "cryptography"):
        pytest.importorskip(package)
    out = tmp_path_factory.mktemp("deployment") / "deploy"
    return export_bundle(small_bundle.path, small_bundle.fleet, out), out

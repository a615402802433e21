"""Mutants of what export and execute write: whatever is changed, reading ends in the same content or one sentence."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from planner.errors import PlannerError
from planner.executor.bundle import read_bundle
from planner.runtime.deployment import read_deployment
from planner.runtime.device.errors import DeviceError
from planner.runtime.device.folder import read_folder, read_token
from planner.runtime.export_folders import Exported
from tests.helpers.deployments import SmallBundle, copied
from tests.helpers.mutants import FEW, MANY, assert_honest, mutants_of_bytes, mutants_of_document


def fuzz(root: Path, file: str, count: int, read: Callable[[], object]) -> None:
    """Assert that each mutant of a file is read or refused: of JSON by values and text, of others by bytes."""
    path = root / file
    content = path.read_bytes()
    if path.suffix == ".json":
        mutants = mutants_of_document(json.loads(content), count)
    else:
        mutants = mutants_of_bytes(content, count)
    assert_honest(path, mutants, read, named=root, refusals=(PlannerError, DeviceError))
    path.write_bytes(content)


AGGREGATOR = ["aggregator/manifest.json", "aggregator/fusion.npz", "aggregator/token"]
DEVICE = ["manifest.json", "expected.npz", "model.onnx", "token"]


@pytest.mark.parametrize("file", AGGREGATOR)
def test_mutants_of_a_deployment(file: str, exported: tuple[Exported, Path], tmp_path: Path) -> None:
    """The aggregator's manifest, the fusion, the secret."""
    deployment = copied(exported[1], tmp_path / "deploy")
    fuzz(deployment, file, FEW // 3, lambda: read_deployment(deployment))


@pytest.mark.parametrize("file", DEVICE)
def test_mutants_of_a_device_folder(file: str, exported: tuple[Exported, Path], tmp_path: Path) -> None:
    """What the worker reads on its board, without pydantic."""
    folder = copied(exported[1] / "00-a", tmp_path / "00-a")
    fuzz(folder, file, FEW // 3, lambda: (read_folder(folder), read_token(folder)))


def test_mutants_of_a_bundle(small_bundle: SmallBundle, tmp_path: Path) -> None:
    """The manifest by value, the others by the hashes in it."""
    bundle = Path(shutil.copytree(small_bundle.path, tmp_path / "bundle"))
    for file in ("manifest.json", "plan.json", "fusion.safetensors"):
        fuzz(bundle, file, FEW // 10, lambda: read_bundle(bundle))


@pytest.mark.slow
def test_thousands_of_mutants_of_folders(
    exported: tuple[Exported, Path], small_bundle: SmallBundle, tmp_path: Path
) -> None:
    """As above, for long."""
    deployment = copied(exported[1], tmp_path / "deploy")
    for file in AGGREGATOR:
        fuzz(deployment, file, MANY, lambda: read_deployment(deployment))
    for folder, file in itertools.product(sorted(deployment.glob("0*")), DEVICE):
        fuzz(folder, file, MANY, lambda folder=folder: (read_folder(folder), read_token(folder)))  # type: ignore[misc]
    bundle = Path(shutil.copytree(small_bundle.path, tmp_path / "bundle"))
    fuzz(bundle, "manifest.json", MANY, lambda: read_bundle(bundle))

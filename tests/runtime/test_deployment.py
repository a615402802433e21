"""Reading of deployments: what was exported is read, and whatever was changed is refused in one sentence."""

import hashlib
import json
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from planner.errors import InputError
from planner.executor.bundle import read_bundle
from planner.runtime.deployment import read_deployment
from planner.runtime.device.errors import DeviceError
from planner.runtime.device.folder import read_folder
from planner.runtime.export_folders import Exported
from planner.schema import AggregatorManifest, DeviceManifest, read_document
from planner.schema.base import Document
from tests.helpers.deployments import SmallBundle, change_json, copied


@pytest.fixture
def deployment(exported: tuple[Exported, Path], tmp_path: Path) -> Path:
    """A deployment that a test may damage."""
    return copied(exported[1], tmp_path / "deploy")


def sign(deployment: Path, file: str = "fusion.npz") -> None:
    """Write the hash of a changed file into the aggregator's manifest, as somebody who means harm would."""
    manifest = deployment / "aggregator" / "manifest.json"
    content = (deployment / "aggregator" / file).read_bytes()
    change_json(manifest, sha256={file: hashlib.sha256(content).hexdigest()})


def change_device(deployment: Path, **changes: Any) -> None:
    """Change keys of the first device in the aggregator's manifest."""
    path = deployment / "aggregator" / "manifest.json"
    devices = json.loads(path.read_text())["devices"]
    change_json(path, devices=[devices[0] | changes, *devices[1:]])


def test_a_deployment_is_read_as_it_was_exported(small_bundle: SmallBundle, exported: tuple[Exported, Path]) -> None:
    """Devices come in the plan's order with what was planned; the fusion's arrays are torch's."""
    deployment = read_deployment(exported[1])
    assert deployment.manifest == exported[0].manifest
    read = read_bundle(small_bundle.path)
    for device, a in zip(deployment.devices, read.plan.assignments, strict=True):
        manifest = device.manifest
        assert (manifest.device, manifest.features) == (a.device, a.embed_dim)
        planned = manifest.planned
        assert (planned.send_us, planned.compute_us, planned.return_us) == (a.send_us, a.compute_us, a.return_us)
        assert planned.memory_bytes == a.memory_bytes
        assert device.certificate is not None
        assert device.certificate.read_bytes() == (device.path / "certificate.pem").read_bytes()
    for name, tensor in read.fusion.state_dict().items():
        np.testing.assert_array_equal(deployment.fusion[name], tensor.numpy())
    assert deployment.token.hex() == (exported[1] / "01-b" / "token").read_text().strip()
    assert torch.equal(torch.tensor(deployment.fusion["mean"]), read.fusion.mean)


def test_reading_needs_no_torch_and_no_onnxruntime(exported: tuple[Exported, Path]) -> None:
    """The aggregator joins features with numpy alone."""
    code = (
        "import sys; from pathlib import Path; from planner.runtime.deployment import read_deployment\n"
        "read_deployment(Path(sys.argv[1]))\n"
        "assert not {'torch', 'onnx', 'onnxruntime', 'ortools', 'cryptography'} & set(sys.modules)\n"
    )
    result = subprocess.run([sys.executable, "-c", code, str(exported[1])], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("file", ["model.onnx", "model.onnx.data", "worker.pyz", "expected.npz", "run.sh"])
def test_a_flipped_bit_is_noticed(deployment: Path, file: str) -> None:
    """One bit of any file of a device is found, by the aggregator's side and by the worker."""
    path = deployment / "00-a" / file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"{file}: SHA-256 must be \w{{12}}\.\.\., got \w{{12}}\.\.\.: the file was"):
        read_deployment(deployment)
    with pytest.raises(DeviceError, match=rf"{file}: SHA-256 must be"):
        read_folder(deployment / "00-a")


def test_a_changed_manifest_is_noticed(deployment: Path) -> None:
    """A device's manifest is hashed by the aggregator's."""
    change_json(deployment / "00-a" / "manifest.json", threads=4)
    with pytest.raises(InputError, match=r"00-a/manifest\.json: SHA-256 must be"):
        read_deployment(deployment)


def test_manifests_must_agree(deployment: Path) -> None:
    """A device's manifest of another deployment is refused, even with its hash."""
    manifest = deployment / "00-a" / "manifest.json"
    change_json(manifest, bundle="0" * 64)
    change_device(deployment, manifest_sha256=hashlib.sha256(manifest.read_bytes()).hexdigest())
    with pytest.raises(InputError, match=r"00-a/manifest\.json: bundle must be that of the aggregator's manifest"):
        read_deployment(deployment)


@pytest.mark.parametrize("name", ["..", "../00-a", "/etc", "a\0b", "", "a/b", ".hidden", "a" * 201, "-rf"])
def test_paths_stay_in_their_folder(deployment: Path, name: str) -> None:
    """No name of a folder or a file leads out of the deployment."""
    change_device(deployment, folder=name)
    with pytest.raises(InputError, match=r"devices\[0\] 'a': folder must "):
        read_deployment(deployment)
    change_device(deployment, folder="00-a", certificate=name)
    with pytest.raises(InputError, match=r"devices\[0\] 'a': certificate must "):
        read_deployment(deployment)


def test_links_are_not_followed(deployment: Path) -> None:
    """A link in place of a file or a folder is refused, wherever it leads."""
    weights = deployment / "00-a" / "model.onnx.data"
    weights.rename(deployment / "elsewhere")
    weights.symlink_to(deployment / "elsewhere")
    with pytest.raises(InputError, match=r"model\.onnx\.data: must be a file of the deployment, got a link"):
        read_deployment(deployment)
    weights.unlink()
    with pytest.raises(InputError, match=r"model\.onnx\.data: must be a file of the deployment, got nothing"):
        read_deployment(deployment)
    (deployment / "00-a").rename(deployment / "other")
    (deployment / "00-a").symlink_to(deployment / "other")
    with pytest.raises(InputError, match=r"00-a: must be a folder of the deployment, got a link"):
        read_deployment(deployment)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [3, 60_000, 60_000]}, r"an image must take at most \d+ bytes, got 10800000000"),
        ({"shape": [1, 2**40, 8]}, r"input\.shape"),
        ({"shape": [1, 8]}, r"input\.shape"),
        ({"dtype": "object"}, r"input: dtype must be 'uint8'"),
    ],
)
def test_sizes_of_images_are_bounded(deployment: Path, changes: dict[str, Any], message: str) -> None:
    """No manifest makes anybody allocate more than a message may have."""
    path = deployment / "aggregator" / "manifest.json"
    change_json(path, input=json.loads(path.read_text())["input"] | changes)
    with pytest.raises(InputError, match=message):
        read_deployment(deployment)


@pytest.mark.parametrize("token", ["", "secret", "0" * 63, "g" * 64, "0" * 10_000_000])
def test_a_token_is_32_bytes(deployment: Path, token: str) -> None:
    """Anything else is refused, and not printed."""
    (deployment / "aggregator" / "token").write_text(token)
    with pytest.raises(
        InputError,
        match=r"token: must (hold 64 hexadecimal digits; export again|have at most 1,024 bytes, got 10,000,000)\.$",
    ):
        read_deployment(deployment)


def write_npz(path: Path, compression: int = zipfile.ZIP_STORED, **arrays: np.ndarray) -> None:
    """Write arrays as numpy does, compressed or not."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, array)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.update(mean=a["mean"].astype(np.float16)), "'mean' must be float32 of shape"),
        (lambda a: a.update({"fc1.bias": a["fc1.bias"][:5]}), r"'fc1\.bias' must be float32 of shape \(128,\), got"),
        (lambda a: a.pop("std"), "must hold 'std', got mean"),
        (lambda a: a["mean"].fill(np.nan), "'mean' must be finite numbers"),
        (lambda a: a.update(mean=np.array([{}], dtype=object)), "plain arrays, got object in 'mean"),
        (lambda a: a.update(mean=np.zeros(1000)), "arrays must take at most .* unpacked"),
    ],
)
def test_the_fusion_has_the_shapes_of_the_manifest(
    deployment: Path, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    """Arrays of other shapes or types, objects among them, are refused although their hash is right."""
    path = deployment / "aggregator" / "fusion.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive}
    change(arrays)
    write_npz(path, **arrays)
    sign(deployment)
    with pytest.raises(InputError, match=rf"fusion\.npz: .*{message}"):
        read_deployment(deployment)


def test_no_file_makes_anybody_allocate(deployment: Path) -> None:
    """A header that promises gigabytes, and a compressed file that holds them, cost no memory."""
    path = deployment / "aggregator" / "fusion.npz"
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive}
    write_npz(path, zipfile.ZIP_DEFLATED, **(arrays | {"mean": np.zeros(10_000_000, np.float32)}))
    sign(deployment)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"arrays must take at most .* unpacked, got 38 MiB"):
        read_deployment(deployment)
    write_npz(path, **{name: array for name, array in arrays.items() if name != "mean"})
    with zipfile.ZipFile(path, "a") as archive, archive.open("mean.npy", "w") as file:
        np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": (2**40,)})
    sign(deployment)
    with pytest.raises(InputError, match=r"'mean' must have as many bytes as float32 of shape \(1099511627776,\)"):
        read_deployment(deployment)
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_what_is_no_deployment_is_said(tmp_path: Path, deployment: Path) -> None:
    """An empty folder, and one that lost its fusion's hash."""
    with pytest.raises(InputError, match=r"must be a deployment that planner export wrote, got no aggregator/manifest"):
        read_deployment(tmp_path / "absent")
    change_json(deployment / "aggregator" / "manifest.json", sha256={})
    with pytest.raises(InputError, match=r"sha256 must name fusion\.npz, got \[\]"):
        read_deployment(deployment)


MANIFESTS: dict[str, type[Document]] = {
    "aggregator/manifest.json": AggregatorManifest,
    "00-a/manifest.json": DeviceManifest,
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(data=st.data())
def test_any_value_in_a_manifest_is_read_or_refused(deployment: Path, data: st.DataObject) -> None:
    """Whatever stands at a key, the manifest is read, or refused in one short sentence."""
    file = data.draw(st.sampled_from(sorted(MANIFESTS)))
    original = (deployment / file).read_text()
    changed = json.loads(original)
    part = changed
    while True:
        key = data.draw(st.sampled_from(sorted(part)) if isinstance(part, dict) else st.integers(0, len(part) - 1))
        if not (isinstance(part[key], (dict, list)) and part[key] and data.draw(st.booleans())):
            break
        part = part[key]
    part[key] = data.draw(JSON)
    path = deployment / "changed.json"
    path.write_text(json.dumps(changed))
    message = refusal(path, MANIFESTS[file])
    assert "\n" not in message
    assert len(message) < 500 + len(str(path))


def refusal(path: Path, model: type[Document]) -> str:
    """Return the message with which a file is refused, or nothing."""
    try:
        read_document(path, model)
    except InputError as error:
        return str(error)
    return ""

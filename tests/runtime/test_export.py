"""Exported folders: torch's features from stored pixels, measured accuracy, whole or not there at all."""

import ast
import copy
import hashlib
import io
import json
import os
import signal
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from planner.errors import InputError, PlannerError
from planner.executor.bundle import read_bundle
from planner.executor.evaluate import evaluate_bundle
from planner.network import data
from planner.network.export import MAX_IR_VERSION, OPSET
from planner.network.vit import VisionTransformer
from planner.runtime import export_check
from planner.runtime.deployment import read_deployment
from planner.runtime.device.session import open_session
from planner.runtime.export import export_bundle, image_input
from planner.runtime.export_folders import Exported
from planner.runtime.onnx_folder import OnnxFolder
from planner.runtime.worker_archive import worker_archive
from planner.schema import ImageInput, InputDtype, Precision
from tests.helpers.deployments import SmallBundle, linux_boards, make_small_bundle

STORED_DIGITS = 16  # the largest value of a digit's pixels


def answers(folder: Path, images: np.ndarray) -> np.ndarray:
    """Return the features that a folder's graph gives, one image at a time."""
    session = open_session(folder / "model.onnx")
    return np.concatenate([session.run(["features"], {"images": image[None]})[0] for image in images])


def test_a_folder_holds_all_that_a_device_needs(exported: tuple[Exported, Path]) -> None:
    """Each device has its folder, each file but the secrets its hash, and secrets are for their owner alone."""
    _, out = exported
    assert {path.name for path in out.iterdir()} == {"aggregator", "00-a", "01-b", "02-c"}
    for folder in (out / "00-a", out / "01-b", out / "02-c"):
        manifest = json.loads((folder / "manifest.json").read_text())
        hashed = {"model.onnx", "model.onnx.data", "worker.pyz", "expected.npz", "run.sh"}
        assert {path.name for path in folder.iterdir()} == hashed | {
            "manifest.json",
            "token",
            "certificate.pem",
            "key.pem",
        }
        assert manifest["sha256"] == {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in hashed}
        for secret in ("token", "key.pem"):
            assert stat.S_IMODE((folder / secret).stat().st_mode) == 0o600
    tokens = {path.read_text() for path in out.glob("*/token")}
    assert len(tokens) == 1
    assert len(bytes.fromhex(tokens.pop())) == 32


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32"])
def test_graphs_give_torchs_features_from_stored_pixels(dtype: InputDtype, tmp_path: Path) -> None:
    """Whatever the type that is sent, pixels go in as stored and torch's features of normalised ones come out."""
    pytest.importorskip("onnxscript")
    small = make_small_bundle(tmp_path, linux_boards("float32", "float32", "float32"), dtype)
    export_bundle(small.path, small.fleet, tmp_path / "deploy")
    read = read_bundle(small.path)
    test, _ = data.load_test(read.card)
    stored = np.load(tmp_path / "test.npz")["images"]
    images = test.tensor()
    assert read.card.preprocessing is not None
    # Found by the loader's own pixels: (pixel * scale - mean) / std, turned round.
    p = read.card.preprocessing
    pixels = ((images * p.std[0] + p.mean[0]) / p.scale).round().numpy().astype(dtype)
    assert {row.tobytes() for row in pixels.astype(np.uint8)} <= {row.tobytes() for row in stored.astype(np.uint8)}
    assert pixels.max() == STORED_DIGITS
    for folder, network in zip(("00-a", "01-b", "02-c"), read.sub_models, strict=True):
        with torch.no_grad():
            expected = network.features(images).numpy()
        got = answers(tmp_path / "deploy" / folder, pixels)
        assert np.abs(got - expected).max() <= 1e-4 * np.abs(expected).max()


def test_files_are_for_older_runtimes(exported: tuple[Exported, Path]) -> None:
    """Graphs are of opset 20 and IR version 10 at most, and name no other operators than ONNX's own."""
    onnx = pytest.importorskip("onnx")
    assert (OPSET, MAX_IR_VERSION) == (20, 10)
    for path in exported[1].glob("*/model.onnx"):
        proto = onnx.load(path, load_external_data=False)
        assert [(operators.domain, operators.version) for operators in proto.opset_import] == [("", 20)]
        assert proto.ir_version <= 10
        (image,) = proto.graph.input
        assert [d.dim_value for d in image.type.tensor_type.shape.dim] == [1, 1, 8, 8]


def test_what_is_expected_is_what_is_answered(exported: tuple[Exported, Path]) -> None:
    """The expected answers are those of the graph for test images, and of different ones."""
    for folder in (exported[1] / "00-a", exported[1] / "01-b"):
        expected = np.load(folder / "expected.npz")
        assert expected["images"].shape == (4, 1, 8, 8)
        assert expected["images"].dtype == np.uint8
        assert len({image.tobytes() for image in expected["images"]}) == 4
        np.testing.assert_array_equal(answers(folder, expected["images"]), expected["features"])


def test_accuracy_is_that_of_the_evaluation(small_bundle: SmallBundle, exported: tuple[Exported, Path]) -> None:
    """In float32, the accuracy of bundle and export is what `planner evaluate` measures, on as many images."""
    evaluation = evaluate_bundle(read_bundle(small_bundle.path))
    accuracy = exported[0].manifest.accuracy
    assert accuracy.num_images == evaluation.num_images == 25
    assert accuracy.bundle == accuracy.exported == evaluation.fused_accuracy
    assert exported[0].comparison.num_changed == 0


def test_int8_is_measured(tmp_path: Path) -> None:
    """A sub-model planned in int8 is quantised, alone, and the accuracy is that of the fused quantised features."""
    pytest.importorskip("onnxruntime")
    small = make_small_bundle(tmp_path, linux_boards("float32", "int8", "float32"))
    exported = export_bundle(small.path, small.fleet, tmp_path / "deploy")
    assert exported.precisions == ("float32", "int8", "float32")
    onnx = pytest.importorskip("onnx")
    for i, folder in enumerate(("00-a", "01-b", "02-c")):
        nodes = onnx.load(tmp_path / "deploy" / folder / "model.onnx", load_external_data=False).graph.node
        assert ("MatMulInteger" in {node.op_type for node in nodes}) == (i == 1)
        assert json.loads((tmp_path / "deploy" / folder / "manifest.json").read_text())["precision"] == (
            "int8" if i == 1 else "float32"
        )
    errors = exported.comparison.feature_errors
    assert errors[0] is not None
    assert errors[1] is not None
    assert errors[2] is not None
    assert max(errors[0], errors[2]) <= 1e-4 < errors[1] < 0.5
    read = read_bundle(small.path)
    test, _ = data.load_test(read.card)
    sent = export_check.sent_values(test.images, slice(None), exported.manifest.input)
    folders = [tmp_path / "deploy" / name for name in ("00-a", "01-b", "02-c")]
    joined = torch.from_numpy(np.concatenate([answers(folder, sent) for folder in folders], axis=1))
    with torch.no_grad():
        correct = read.fusion(joined).argmax(1) == test.labels
    assert exported.manifest.accuracy.exported == pytest.approx(float(correct.float().mean()))


def test_wrong_features_are_an_error(
    small_bundle: SmallBundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A graph that answers otherwise than torch is not handed out, and nothing is left."""

    def write_another(
        self: OnnxFolder, network: VisionTransformer, precision: Precision, image: ImageInput, folder: Path
    ) -> None:
        shifted = copy.deepcopy(network)
        with torch.no_grad():
            shifted.norm.bias.add_(0.01)
        original(self, shifted, precision, image, folder)

    original = OnnxFolder.write_network
    monkeypatch.setattr(OnnxFolder, "write_network", write_another)
    with pytest.raises(PlannerError, match=r"^a: exported features must equal torch's to 0\.0001 of their scale"):
        export_bundle(small_bundle.path, small_bundle.fleet, tmp_path / "deploy")
    assert list(tmp_path.iterdir()) == []


def test_float16_is_refused(tmp_path: Path) -> None:
    """Engines would unpack float16 weights to twice their planned memory."""
    small = make_small_bundle(tmp_path, linux_boards("float32", "float16", "float32"))
    with pytest.raises(InputError, match=r"^b: the precision must be float32 or int8, got float16"):
        export_bundle(small.path, small.fleet, tmp_path / "deploy")
    assert not (tmp_path / "deploy").exists()


def test_another_fleet_is_refused(small_bundle: SmallBundle, tmp_path: Path) -> None:
    """A bundle is exported for the fleet it was planned for alone."""
    with pytest.raises(InputError, match=r"must be a bundle for this fleet: the plan is for another fleet"):
        export_bundle(small_bundle.path, linux_boards("float32", "float32"), tmp_path / "deploy")


def test_the_profile_says_what_is_sent(small_bundle: SmallBundle) -> None:
    """Bytes for each value decide its type, and what is no whole number of them is refused."""
    read = read_bundle(small_bundle.path)
    assert image_input(read.card, read.profile).dtype == "uint8"
    assert image_input(read.card, read.profile.replace(input_bytes=256)).dtype == "float32"
    with pytest.raises(InputError, match=r"input_bytes must be 64 \(uint8\) or 128 \(float16\) or 256 \(float32\)"):
        image_input(read.card, read.profile.replace(input_bytes=100))


def test_a_folder_in_use_is_refused(small_bundle: SmallBundle, tmp_path: Path) -> None:
    """Nothing is overwritten, and nothing is followed."""
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match=r"used: must be a new or empty folder, got one that holds 'mine\.txt'"):
        export_bundle(small_bundle.path, small_bundle.fleet, tmp_path / "used")
    (tmp_path / "link").symlink_to(tmp_path / "used")
    with pytest.raises(InputError, match=r"link: must be a new or empty folder, got a file or a link"):
        export_bundle(small_bundle.path, small_bundle.fleet, tmp_path / "link")


def test_a_killed_export_leaves_no_deployment(small_bundle: SmallBundle, tmp_path: Path) -> None:
    """Killed while it compares, it leaves no folder of that name; the next export cleans up and succeeds."""
    out = tmp_path / "deploy"
    (tmp_path / "devices.json").write_text(small_bundle.fleet.model_dump_json())
    code = (
        "import os, signal, sys; from pathlib import Path; from planner.library import load_fleet\n"
        "from planner.runtime.export import export_bundle\n"
        "def kill(what, done, total):\n"
        "    if what.startswith('compare'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "export_bundle(Path(sys.argv[1]), load_fleet(sys.argv[2]), Path(sys.argv[3]), on_progress=kill)\n"
    )
    arguments = map(str, (small_bundle.path, tmp_path / "devices.json", out))
    killed = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not out.exists()
    export_bundle(small_bundle.path, small_bundle.fleet, out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deploy", "devices.json"]
    read_deployment(out)


def test_the_worker_archive_is_made_of_equal_bytes() -> None:
    """The archive is the same each time, and holds the modules as Python 3.9 reads them."""
    content = worker_archive()
    assert content == worker_archive()
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert {"__main__.py", "worker/__init__.py", "worker/__main__.py"} <= set(archive.namelist())
        for name in archive.namelist():
            ast.parse(archive.read(name), feature_version=(3, 9))


def test_the_folder_runs_with_numpy_and_onnxruntime_alone(exported: tuple[Exported, Path], tmp_path: Path) -> None:
    """The worker's self-test passes where any other third-party package, the planner included, is refused."""
    hook = tmp_path / "hook.py"
    hook.write_text(
        "import runpy, sys\n"
        "allowed = {'numpy', 'onnxruntime', 'worker', *sys.stdlib_module_names}\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] not in allowed and not name.startswith('_'):\n"
        "            raise ModuleNotFoundError(f'refused {name}', name=name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
        "sys.path.append(sys.argv[1])\n"
        "try:\n"
        "    import torch\n"
        "except ModuleNotFoundError: pass\n"
        "else: sys.exit('torch was not refused')\n"
        "sys.argv = [sys.argv[2], sys.argv[3], '--self-test']\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    folder = exported[1] / "00-a"
    packages = Path(np.__file__).parent.parent
    result = subprocess.run(
        [sys.executable, "-I", "-S", hook, packages, folder / "worker.pyz", folder],
        capture_output=True,
        text=True,
        env={"PATH": os.environ["PATH"]},
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "self-test passed" in result.stderr


def test_run_sh_starts_the_worker_from_anywhere(exported: tuple[Exported, Path], tmp_path: Path) -> None:
    """`sh run.sh` finds its folder, and a virtual environment beside it."""
    environment = os.environ | {"PYTHON": sys.executable}
    run = ["sh", str(exported[1] / "01-b" / "run.sh"), "--self-test"]
    result = subprocess.run(run, capture_output=True, text=True, cwd=tmp_path, env=environment)
    assert result.returncode == 0, result.stderr

"""`planner export` and `planner deploy`: what they print and what they refuse."""

from pathlib import Path

import pytest

from tests.helpers.command_line import planner, planner_here, refused
from tests.helpers.deployments import linux_boards, make_small_bundle

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with its fleet, and the same for boards without ONNX Runtime."""
    folder = tmp_path_factory.mktemp("cli")
    for name, engine in (("", "onnxruntime"), ("bare", "c")):
        (folder / name).mkdir(exist_ok=True)
        small = make_small_bundle(folder / name, linux_boards("float32", "int8", "float32", engine=engine))
        (folder / name / "devices.json").write_text(small.fleet.model_dump_json())
    return folder


def test_export_says_what_it_measured(folder: Path) -> None:
    """A row for each device, the accuracy beside torch's, and the folder; a folder in use is refused."""
    result = planner("export", "bundle", "--out", "deploy", cwd=folder)
    assert result.returncode == 0, result.stderr
    lines = result.stdout.splitlines()
    assert lines[0].strip() == "Exported for images of 64 bytes (uint8, 1 x 8 x 8)"
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in lines if line.startswith("│")]
    precisions = {"a": "float32", "b": "int8", "c": "float32"}
    assert [row[:4] for row in rows] == [
        [name, f"{i:02}-{name}", "onnxruntime", precision] for i, (name, precision) in enumerate(precisions.items())
    ]
    assert float(rows[1][4]) > 1e-4 > float(rows[0][4])
    said = " ".join(" ".join(lines[-3:]).split())
    assert "Accuracy on the 25 test images: " in said
    assert " in torch, float32; another answer on " in said
    assert lines[-1] == "deploy: folders of 3 devices and of the aggregator."
    deploy = folder / "deploy"
    again = planner_here("export", folder / "bundle", "--devices", folder / "devices.json", "--out", deploy)
    refused(again, "must be a new or empty folder, got one that")
    new = ("--devices", folder / "devices.json", "--out", folder / "new")
    for names, said in (("b, a", "devices with the C engine, got 'b'"), ("d", "devices that the plan uses, got 'd'")):
        refused(planner_here("export", folder / "bundle", *new, "--tls", names), f"--tls must name {said}")
    refused(planner_here("deploy", deploy, "--to", "d=pi@x"), "--to must name a device of the deployment")
    refused(planner_here("deploy", deploy, "--to", "a=x", "--listen", "7447"), "--listen must be HOST:PORT")


def test_boards_without_onnx_runtime_get_c(folder: Path) -> None:
    """The table names the engine; where ONNX Runtime is to stand in, the folders are not deployed."""
    bare = folder / "bare"
    result = planner("export", "bundle", "--out", "deploy", cwd=bare)
    assert result.returncode == 0, result.stderr
    rows = [[cell.strip() for cell in line.strip("│ ").split("│")] for line in result.stdout.splitlines()]
    assert [row[2] for row in rows if row[0] in ("a", "b", "c")] == ["c"] * 3
    result = planner("export", "bundle", "--out", "stand-in", "--stand-in", cwd=bare)
    assert result.returncode == 0, result.stderr
    assert "ONNX Runtime stands in for the C engine on 3 devices." in result.stdout
    refused(planner_here("deploy", bare / "stand-in", "--to", "a=pi@x"), "a: was exported for a rehearsal")

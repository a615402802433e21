"""Commands that run out of space: one sentence, nothing half written, and with room the same command succeeds."""

import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from planner.schema import write_document
from tests.helpers.common import DEVICES
from tests.helpers.deployments import linux_boards, make_small_bundle
from tests.helpers.small_run import small_card

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits and mounts as Linux has them")

PLANNER = Path(sys.executable).with_name("planner")


def out_of_space(command: list[str | Path], cwd: Path, max_bytes: int) -> str:
    """Run a command where no file may be larger than this, which it must refuse; return its sentence."""

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, max_bytes))

    # The limit is as a full disk to whoever writes, and can be set for one process.
    result = subprocess.run([PLANNER, *command], cwd=cwd, capture_output=True, text=True, preexec_fn=limit)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    return result.stderr.splitlines()[-1]


def test_a_plan_that_has_no_room_is_not_half_written(tmp_path: Path) -> None:
    """One sentence with the size that is needed; no file, and no temporary one, is left."""
    sentence = out_of_space(["solve", "-d", DEVICES, "--method", "greedy", "--out", "plan.json"], tmp_path, 2000)
    assert sentence.startswith("--out plan.json: cannot be written (File too large)")
    sentence = out_of_space(["solve", "-d", DEVICES, "--method", "greedy", "--out", "plan.json"], tmp_path, 4500)
    assert sentence.startswith("plan.json: cannot be written (File too large): needs ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    [
        ["report", "plan.json", "-d", DEVICES, "--time-limit", "1", "--out", "report.html"],
        ["what-if", "-d", DEVICES, "--drop-each", "--time-limit", "1", "--out", "rows.csv"],
        ["probe", "make", "digits-vit", "--out", "probes"],
        ["execute", "plan.json", "--epochs", "0", "--out", "bundle"],
    ],
    ids=lambda command: command[0],
)
def test_no_room_is_one_sentence(command: list[str | Path], tmp_path: Path) -> None:
    """Every command that writes says what it could not write, and leaves nothing half written."""
    plan: list[str | Path]
    plan = [PLANNER, "solve", "-d", DEVICES, "--method", "greedy", "--max-accuracy-drop", "0.5", "--out", "plan.json"]
    subprocess.run(plan, cwd=tmp_path, check=True, capture_output=True)
    assert "cannot be written (File too large)" in out_of_space(command, tmp_path, 4500)
    assert not list(tmp_path.rglob(".*.json.*"))


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Disk of 16 MiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "none", folder], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"no disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def _write_inputs(command: object, folder: Path) -> None:
    """Write what a command reads: a card, a bundle with its fleet, or a plan."""
    if command == "profile":
        small_card(folder)
    elif command == "export":
        bundle = make_small_bundle(folder, linux_boards("float32", "float32", "float32"))
        write_document(folder / "devices.json", bundle.fleet)
    elif command in ("report", "execute"):
        plan: list[str | Path] = [PLANNER, "solve", "-d", DEVICES, "--method", "greedy", "--max-accuracy-drop", "0.5"]
        subprocess.run(
            [*plan, "--time-limit", "600", "--out", "plan.json"], cwd=folder, check=True, capture_output=True
        )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("command", "free_bytes"),
    [
        (["solve", "-d", DEVICES, "--method", "greedy", "--out", "disk/plan.json"], 4096),
        (["report", "plan.json", "-d", DEVICES, "--time-limit", "1", "--out", "disk/report.html"], 2**20),
        (["what-if", "-d", DEVICES, "--drop-each", "--time-limit", "1", "--out", "disk/rows.csv"], 4096),
        (["probe", "make", "digits-vit", "--out", "disk/probes"], 2**18),
        (["execute", "plan.json", "--epochs", "0", "--out", "disk/bundle"], 2**16),
        (["export", "bundle", "-d", "devices.json", "--out", "disk/deploy"], 2**17),
        (["profile", "card.json", "--epochs", "0", "--trial-plans", "2", "--out", "disk/profile.json"], 2**14),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_full_disk_is_one_sentence(command: list[str | Path], free_bytes: int, disk: Path, tmp_path: Path) -> None:
    """What is there is whole; when something else is removed from the disk, the same command succeeds."""
    _write_inputs(command[0], tmp_path)
    (disk / "something-else").write_bytes(bytes(2**24 - free_bytes))
    result = subprocess.run([PLANNER, *command], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert "Traceback" not in result.stderr
    assert "(No space left on device)" in result.stderr.splitlines()[-1]
    # An interrupted profile keeps what is finished, in a folder beside it.
    assert [path.name for path in disk.rglob(".*")] == [".profile.json.work"] * (command[0] == "profile")
    for document in disk.rglob("*.json"):
        json.loads(document.read_text())
    (disk / "something-else").unlink()
    subprocess.run([PLANNER, *command], cwd=tmp_path, check=True, capture_output=True)

"""`planner rehearse`, and its numbers on the page of `planner report`, as a user meets them."""

from pathlib import Path

import pytest

from planner.library import read_plan
from planner.schema import Rehearsal, read_document, sha256_of, write_document
from tests.helpers.command_line import planner, planner_here, refused
from tests.helpers.deployments import SmallBundle, linux_boards, make_small_bundle
from tests.helpers.rehearsals import rehearsal

for package in ("onnxscript", "onnxruntime", "cryptography"):
    pytest.importorskip(package)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> SmallBundle:
    """Bundle of two boards, its fleet in devices.json beside it."""
    folder = tmp_path_factory.mktemp("bundle")
    made = make_small_bundle(folder, linux_boards("float32", "float32", "float32"))
    write_document(folder / "devices.json", made.fleet)
    return made


def devices(bundle: SmallBundle) -> Path:
    """Return the file of the bundle's fleet."""
    return bundle.path.parent / "devices.json"


def test_a_rehearsal_is_printed_written_and_shown_on_the_page(bundle: SmallBundle, tmp_path: Path) -> None:
    """The table on stdout, the same numbers in rehearsal.json, and the page of the plan with both."""
    out, page = tmp_path / "rehearsal.json", tmp_path / "report.html"
    done = planner("rehearse", bundle.path, "--devices", devices(bundle), "--images", "12", "--out", out)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "12 images" in done.stdout
    assert "│ held" in done.stdout
    assert "the same class for each of 12 images." in " ".join(done.stdout.split())
    written = read_document(out, Rehearsal)
    assert written.num_images == 12
    assert written.plan_sha256 == sha256_of(read_plan(bundle.path / "plan.json"))
    profile = bundle.path / "profile.json"
    options = ("--devices", devices(bundle), "--profile", profile, "--time-limit", "1", "--out", page)
    shown = planner("report", bundle.path / "plan.json", *options, "--rehearsal", out)
    assert shown.returncode == 0, shown.stderr
    assert "Predicted and measured" in page.read_text()


def test_a_rehearsal_of_another_plan_is_refused(bundle: SmallBundle, tmp_path: Path) -> None:
    """The page shows no numbers of another plan."""
    other = tmp_path / "rehearsal.json"
    write_document(other, rehearsal())
    options = ("--devices", devices(bundle), "--profile", bundle.path / "profile.json", "--rehearsal", other)
    refused(planner_here("report", bundle.path / "plan.json", *options), "must be a rehearsal of this plan")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--kill", "b"), "--kill: must be NAME@IMAGE, such as a@100, got 'b'"),
        (("--kill", "b@99"), "--kill: must name one of the 25 images, got image 99 for b"),
        (("--kill", "bb@9"), "--kill: must name a device that the plan uses, got 'bb'"),
    ],
)
def test_impossible_wishes_are_refused(bundle: SmallBundle, arguments: tuple[str, ...], message: str) -> None:
    """One sentence with the flag, before any worker is started."""
    refused(planner_here("rehearse", bundle.path, "--devices", devices(bundle), *arguments), message)


def test_a_fleet_of_another_plan_is_refused(bundle: SmallBundle, tmp_path: Path) -> None:
    """What is rehearsed is the plan on its own fleet."""
    write_document(tmp_path / "other.json", linux_boards("float32", "float32"))
    refused(planner_here("rehearse", bundle.path, "--devices", tmp_path / "other.json"), "other.json: ")


def test_a_plan_is_no_bundle(tmp_path: Path) -> None:
    """Without weights there is nothing to run."""
    (tmp_path / "bundle").mkdir()
    refused(planner_here("rehearse", tmp_path / "bundle", "--devices", "devices.json"), "must be a bundle")

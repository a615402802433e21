"""The wheel holds its data and works where it is installed."""

import json
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from tests.helpers.common import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from this tree."""
    out = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    subprocess.run(command, check=True, capture_output=True)
    return next(out.glob("*.whl"))


def test_the_wheel_holds_profiles_and_models(wheel: Path) -> None:
    """The package holds everything shipped, and nothing else of the repository."""
    names = zipfile.ZipFile(wheel).namelist()
    for name in (
        "planner/profiles/digits-vit.json",
        "planner/profiles/devices/esp32-s3.json",
        "planner/models/digits-vit/card.json",
        "planner/report/templates/page.html.jinja",
        "planner/report/templates/page.css",
        "planner/report/templates/page.js",
        "planner/models/digits-vit/weights.safetensors",
        "planner/models/deit_tiny_distilled_patch16_224/card.json",
    ):
        assert name in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"planner", "vit_planner"}


def test_the_wheel_works_when_installed_elsewhere(wheel: Path, tmp_path: Path) -> None:
    """Installed into a new environment, with this one's dependencies, it plans in an empty folder."""
    environment = tmp_path / "environment"
    venv.create(environment, with_pip=False)
    site = next((environment / "lib").glob("python*/site-packages"))
    # A path file lends the dependencies, but not this environment's own editable install.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--prefix"]
    subprocess.run([*install, str(environment), "--ignore-installed", str(wheel)], check=True, capture_output=True)
    empty = tmp_path / "empty"
    empty.mkdir()
    shutil.copy(ROOT / "examples" / "devices.json", empty)
    python = environment / "bin" / "python"
    where = subprocess.run(
        [python, "-c", "import planner; print(planner.__file__)"], check=True, capture_output=True, text=True, cwd=empty
    )
    assert Path(where.stdout.strip()).is_relative_to(site)
    script = "import sys; from planner.cli import main; sys.argv = ['planner', 'solve', '--json']; main()"
    result = subprocess.run([python, "-c", script], check=True, capture_output=True, text=True, cwd=empty)
    assert json.loads(result.stdout)["latency_us"] > 0

"""Work folders that another version began: refused in one sentence that says what to delete."""

import json
from pathlib import Path

import pytest
from torch import zeros

from planner.errors import InputError
from planner.network.checkpoint import load_model
from planner.network.data import Samples
from planner.profiler.budget import read_budget
from planner.profiler.options import ProfileOptions
from planner.profiler.recovered_loss import RecoveredLoss
from planner.profiler.stopwatch import Stopwatch

BUDGET = {"weights": "0", "minutes": 20, "images_per_class": 4, "epochs": 0}


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (json.dumps(BUDGET), "max_relative_macs is missing"),
        (json.dumps(BUDGET | {"max_relative_macs": 2, "teachers": 1}), "unknown key 'teachers'"),
        (json.dumps(BUDGET)[:-5], "line 1, column "),
        ("[]", "must be"),
        ("", "not JSON"),
    ],
)
def test_a_budget_of_another_version_is_refused(content: str, problem: str, tmp_path: Path) -> None:
    """The sentence has what is wrong, and the folder; the file is left as it is."""
    folder = tmp_path / ".profile.json.work"
    folder.mkdir()
    (folder / "budget.json").write_text(content)
    with pytest.raises(InputError) as caught:
        read_budget(folder / "budget.json", *load_model("digits-vit"), ProfileOptions(), 1)
    said = str(caught.value)
    assert said.startswith(f"{folder / 'budget.json'}: ")
    assert problem in said
    assert said.endswith(
        f": another version of the planner wrote it, or it is damaged; delete {folder} to begin again, or write the "
        "profile to another file."
    )
    assert (folder / "budget.json").read_text() == content


def test_so_are_the_other_files(tmp_path: Path) -> None:
    """The time taken, and what was measured."""
    for file in ("time.json", "losses.json"):
        (tmp_path / file).write_text('{"from": "elsewhere"}')
    with pytest.raises(InputError, match=r"time\.json: .* another version of the planner wrote it"):
        Stopwatch(tmp_path / "time.json")
    _, whole = load_model("digits-vit")
    samples = Samples(zeros(1, 1, 8, 8), zeros(1).long())
    with pytest.raises(InputError, match=r"losses\.json: .* another version of the planner wrote it"):
        RecoveredLoss(whole, samples, tmp_path / "losses.json", 0)

"""`planner import` as a user meets it."""

from pathlib import Path

import pytest
from torch.nn.functional import silu
from typer.testing import CliRunner, Result

from planner.cli import app
from planner.network.vit import VisionTransformer
from planner.schema import ModelCard, read_document
from tests.helpers import foreign_names
from tests.helpers.checkpoints import DISTILLED, PLAIN, write
from tests.helpers.plain_vit import random_model
from tests.helpers.reference_vit import PACKED_LAYERS, Twin, packed


def planner(*args: object, columns: int = 80) -> Result:
    """Run a command in this process, at 80 columns."""
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": str(columns)})


@pytest.mark.parametrize("as_file", [False, True])
def test_the_command_says_what_it_found(tmp_path: Path, as_file: bool) -> None:
    """A table of 80 columns, a model with the classes' names, and the next step."""
    source = write(tmp_path / "a.pth", foreign_names.timm(random_model(DISTILLED)), "model")
    names = ["tench", "goldfish", "great white shark", "ray", "cock"]
    given = ",".join(names)
    if as_file:
        given = str(tmp_path / "names.txt")
        Path(given).write_text("\n".join(names) + "\n")
    out = tmp_path / "mine"
    result = planner("import", source, "--out", out, "--num-heads", 4, "--classes", given, "--layer-norm-eps", "1e-5")
    assert result.exit_code == 0, result.stderr
    params = sum(p.numel() for p in VisionTransformer(DISTILLED).parameters())
    for found in ("2, distilled", "4 of dim 3", "6 x 6 pixels, 3 channels", "epsilon 1e-05", "tench", f"{params:,}"):
        assert found in result.stdout
    assert "add `data` and `preprocessing`" in result.stdout
    table = [line for line in result.stdout.splitlines() if line.startswith(("┌", "│", "└", "┃", "┏"))]
    assert table
    assert max(map(len, table)) <= 80
    card = read_document(out / "card.json", ModelCard)
    assert card.classes == tuple(names)
    assert card.architecture.layer_norm_eps == 1e-5
    assert (card.data, card.preprocessing, card.training, card.accuracy) == (None, None, None, None)


def test_rectangles_gates_and_norms_of_queries_are_shown(tmp_path: Path) -> None:
    """Height and width are given as 4x10; the table says what was found in the MLPs and in attention."""
    twin = Twin(packed(silu, 1), PACKED_LAYERS, "weight bias", image=(4, 10))
    source = write(tmp_path / "a.pth", twin.state())
    result = planner("import", source, "--out", tmp_path / "mine", "--image-size", "4x10", "--gate", "last")
    assert result.exit_code == 0, result.stderr
    for found in ("4 x 10 pixels", "2 x 2 pixels, 10 of them", "behind a layer norm", "7 with gates, activation silu"):
        assert found in result.stdout


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.pth", "--num-heads", "4"], "none.pth: no such file."),
        (["a.pth"], "give it as --num-heads"),
        (["a.pth", "--num-heads", "4", "--gate", "second"], "--gate: must be first or last, got 'second'."),
        (
            ["a.pth", "--num-heads", "4", "--image-size", "4x"],
            "--image-size: must be a height and a width such as 40x98",
        ),
        (["a.pth", "--num-heads", "4", "--image-size", "4x9"], "must have 1 + 8 tokens for images of 4x9"),
        (["a.pth", "--num-heads", "4", "--classes", "none.txt"], "none.txt: no such file."),
        (["a.pth", "--num-heads", "4", "--classes", "empty.txt"], "must hold a class name on each line, got none"),
        (["a.pth", "--num-heads", "4", "--classes", "a,b"], "has 5 classes, got names for 2"),
        (
            ["a.pth", "--num-heads", "4", "--classes", '["cat", "dog"]'],
            "must be names with commas between, got a list in",
        ),
        (["a.pth", "--num-heads", "4", "--classes", "dict.txt"], "must hold a class name on each line, got a list in"),
    ],
)
def test_the_command_refuses_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str
) -> None:
    """A refusal is one line on stderr with exit code 2, and no folder is made."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.pth", random_model(PLAIN).state_dict())
    (tmp_path / "empty.txt").touch()
    (tmp_path / "dict.txt").write_text("{0: 'tench',\n 1: 'goldfish'}\n")
    result = planner("import", *args, "--out", "mine")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "mine").exists()

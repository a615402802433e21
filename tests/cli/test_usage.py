"""Command lines that cannot be parsed or carried out: one sentence in our words, before any work."""

import sys
from pathlib import Path

import pytest

from planner.cli import main

Capture = pytest.CaptureFixture[str]


def said(words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> str:
    """Run a command line in this process, which must be refused, and return its sentence."""
    monkeypatch.setattr(sys, "argv", ["planner", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    return printed.err.removesuffix("\n")


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("profile digits-vit --minutes -3", "--minutes must be >= 1, got '-3'; see planner profile --help."),
        ("rehearse b --images=0", "--images must be >= 1, got '0'; see planner rehearse --help."),
        ("solve -d d.json --seed 1.5", "--seed must be a whole number, got '1.5'; see planner solve --help."),
        ("solve --time-limit soon", "--time-limit must be a number, got 'soon'; see planner solve --help."),
        (
            "solve --objective fast",
            "--objective must be one of latency, accuracy, energy, devices, got 'fast'; see planner solve --help.",
        ),
        ("frobnicate", "No such command 'frobnicate'; see planner --help."),
    ],
)
def test_a_wrong_word_is_named(line: str, sentence: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """Neither typer's nor pydantic's words are shown."""
    assert said(line.split(), monkeypatch, capsys) == sentence


def test_a_model_without_a_profile_says_what_to_type(monkeypatch: pytest.MonkeyPatch, capsys: Capture) -> None:
    """A shipped model is no misspelled profile."""
    assert said(["profile", "deit_tiny_patch16_224", "--show"], monkeypatch, capsys) == (
        "No profile comes with deit_tiny_patch16_224: measure one by `planner profile deit_tiny_patch16_224 --out "
        "profile.json`, then show profile.json."
    )


@pytest.mark.parametrize("command", ["solve", "report", "what-if", "profile", "rehearse"])
def test_a_result_that_cannot_be_written_is_noticed_before_any_work(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    """Not even the inputs have been read, which are not there."""
    (tmp_path / "file").touch()
    words = {"report": ["none.json"], "profile": ["none.json"], "rehearse": ["none"]}.get(command, ["-d", "none.json"])
    out = tmp_path / "file" / "rows.csv"
    sentence = said([command, *words, "--out", str(out)], monkeypatch, capsys)
    assert sentence == f"--out {out}: cannot be written (Not a directory)."
    sentence = said([command, *words, "--out", str(tmp_path)], monkeypatch, capsys)
    assert sentence == f"--out {tmp_path}: must be a file, got a folder."

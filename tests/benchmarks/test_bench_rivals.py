"""The rivals' benchmark: the width that fits, what a row's latency is, the page, and a short run."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.accuracy.execution import Outcome
from benchmarks.rivals import page
from benchmarks.rivals.networks import ConvShape, filters_of_width
from benchmarks.rivals.rows import Row, timed_shapes
from benchmarks.rivals.settings import FULL
from benchmarks.rivals.side_by_side import JoinShape, TimedShape
from benchmarks.rivals.width import largest_width
from planner.network.vit import Shape
from tests.helpers.common import ROOT

VIT = Shape(28, 7, 1, 10, embed_dim=96, head_dim=16, num_heads=(6,) * 6, hidden_dim=(384,) * 6)
SUB_MODEL = replace(VIT, num_heads=(2,) * 6, hidden_dim=(64,) * 6)
CNN = ConvShape(1, (28, 28), 10, filters_of_width(16))
HEAD, FUSION = JoinShape((64,), 0, 10), JoinShape((64,) * 4, 128, 10)
VIT_HEAD, VIT_FUSION = JoinShape((96,), 0, 10), JoinShape((96,) * 4, 128, 10)


def timer(widths: Sequence[int]) -> tuple[float, list[float]]:
    """Fake times: the reference takes 100 us; 16 filters are faster than 12, as they fill the registers."""
    return 100.0, [{8: 60.0, 12: 110.0, 16: 90.0, 20: 130.0}[width] for width in widths]


@pytest.mark.parametrize(
    ("share", "expected"),
    [(1.0, 16), (0.9, 16), (0.89, 8), (1.3, 20), (0.5, 8)],
)
def test_largest_width(share: float, expected: int) -> None:
    """The widest within the limit, narrower ones beyond it or not; the narrowest where none is within."""
    assert largest_width(timer, [8, 12, 16, 20], share) == expected


def outcome(fused: float, num_boards: int = 1) -> Outcome:
    """Return an outcome whose worst class is ten points below the mean."""
    names = [f"board-{i}" for i in range(num_boards)]
    without = {name: fused - 0.01 * i for i, name in enumerate(names, start=1)}
    return Outcome(fused, [fused + 0.1, fused - 0.1], without, dict.fromkeys(names, 36000), 0.0)


def rows(cnn: float) -> list[Row]:
    """Return made rows, with an accuracy of the CNN that is not split."""
    spiking = replace(NARROW, steps=2)
    return [
        Row(page.WHOLE, (VIT,), VIT_HEAD, 0, Outcome(0.9, [0.7], {}, {}, 0.0), 1_200_000, 240),
        Row(page.PRUNED, (SUB_MODEL,), VIT_HEAD, 0, outcome(0.86), 1_200_000, 80),
        Row(page.SPLIT, (SUB_MODEL,) * 4, VIT_FUSION, 0, outcome(0.88, 4), 1_200_000, 79),
        Row(page.SMALL_CNN, (CNN,), HEAD, 0, Outcome(cnn, [0.6], {}, {}, 0.0), 240_000),
        Row(page.SPLIT_CNN, (CNN,) * 4, FUSION, 0, outcome(0.85, 4), 120_000),
        Row(page.SPIKING_CNN, (spiking,) * 4, FUSION, 0, outcome(0.8, 4), 120_000),
    ]


NARROW = replace(CNN, filters=filters_of_width(8))
TIMES: dict[TimedShape, float] = {VIT: 220.0, SUB_MODEL: 70.0, CNN: 60.0, NARROW: 30.0}
TIMES |= {VIT_HEAD: 3.0, HEAD: 2.0, VIT_FUSION: 6.0, FUSION: 5.0}


def test_each_network_is_timed_once() -> None:
    """Four equal networks are one, and a spiking one is timed as one of ReLU."""
    assert set(timed_shapes(rows(0.9))) == set(TIMES)
    assert len(timed_shapes(rows(0.9))) == len(TIMES)


def test_latency_of_rows() -> None:
    """The slowest network and the join; two passes of a spiking network: 2 x 30 + 5."""
    assert [row.measured_us(TIMES) for row in rows(0.9)] == [223, 73, 76, 62, 65, 65]


def test_the_page() -> None:
    """Rows, differences in points, and shares of the whole model's latency as by hand."""
    text = page.page(FULL, rows(0.91), TIMES, 6000)
    lines = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in text.splitlines() if "|" in line}
    assert lines[page.SPLIT][1:8] == ["88.00%", "+2.00", "78.0%", "84.0%", "79", "76", "0.34"]
    assert lines[page.SPLIT][10:12] == ["1,200,000", "36,000"]
    assert lines[page.SMALL_CNN][1:8] == ["91.00%", "-1.00", "60.0%", "-", "-", "62", "0.28"]
    assert f"*{page.SMALL_CNN}* is 3.00 points above *{page.SPLIT}*. It takes 0.82 of its latency" in text
    assert f"*{page.SPIKING_CNN}* is 5.00 points below *{page.SPLIT_CNN}*." in text
    assert "6,000 test images" in text


@pytest.mark.parametrize(
    ("cnn", "answer"),
    [
        (0.90, "It is more accurate than"),
        (0.885, "It is as accurate, as far as can be told, as"),
        (0.87, "It is as accurate, as far as can be told, as"),
        (0.86, "the split ViT is more accurate than"),
    ],
)
def test_the_answer_is_whichever_it_is(cnn: float, answer: str) -> None:
    """Beside 88 % of 6,000 images, chance makes 1.96 sqrt(2 x 0.88 x 0.12 / 6000) = 1.16 points."""
    answers = (
        "It is more accurate than",
        "It is as accurate, as far as can be told, as",
        "the split ViT is more accurate than",
    )
    text = page.page(FULL, rows(cnn), TIMES, 6000)
    assert [a for a in answers if a in text] == [answer]
    assert "up to 1.16 points may be chance" in text


def test_a_row_that_was_not_run_yet() -> None:
    """Its costs are there, its accuracy is not, and nothing is said of it."""
    *others, spiking = rows(0.91)
    text = page.page(FULL, [*others, replace(spiking, outcome=None, scratch_images=None)], TIMES, 6000)
    (line,) = (line for line in text.splitlines() if line.startswith(f"| {page.SPIKING_CNN} |"))
    assert line.split(" | ")[1:8] == ["not run yet", "-", "-", "-", "-", "65", "0.29"]
    assert line.split(" | ")[10:12] == ["-", "-"]
    assert f"*{page.SPIKING_CNN}* is" not in text
    assert f"*{page.SMALL_CNN}* is 3.00 points above" in text


@pytest.mark.slow
def test_a_short_run(tmp_path: Path) -> None:
    """Digits, hardly trained: a page with all rows; a second run repeats nothing."""
    environment = os.environ | {"PLANNER_CACHE": str(tmp_path / "cache")}
    command = [sys.executable, "-m", "benchmarks.rivals", "--small", "--out", str(tmp_path / "out")]
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=900)
    text = (tmp_path / "out" / "rivals.md").read_text()
    for row in (page.WHOLE, page.PRUNED, page.SPLIT, page.SMALL_CNN, page.SPLIT_CNN, page.SPIKING_CNN):
        assert f"| {row} |" in text
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()}
    subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=300)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*") if path.is_file()} == files
    assert (tmp_path / "out" / "rivals.md").read_text() == text

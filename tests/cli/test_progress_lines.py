"""Progress in logs: a line a minute, with the time left."""

import io
import threading

from rich.console import Console

from planner.cli.progress_lines import ProgressLines


def test_a_line_a_minute() -> None:
    """Ten steps of 25 s each: after 75 s and 150 s a line is due, with 70 and 40 % of the steps left."""
    now, text = 0.0, io.StringIO()
    progress = ProgressLines(Console(file=text, width=80), get_time=lambda: now)
    task = progress.add_task("measure importance", total=10)
    for done in range(1, 8):
        now = 25.0 * done
        progress.update(task, completed=done, total=10)
    assert text.getvalue().splitlines() == [
        "measure importance: 30%, 3 min left",
        "measure importance: 60%, 2 min left",
    ]


def test_names_are_no_markup_and_an_unknown_end_has_no_time() -> None:
    """Of a step that has only begun nobody knows how long it takes."""
    now, text = 0.0, io.StringIO()
    progress = ProgressLines(Console(file=text, width=80), get_time=lambda: now)
    task = progress.add_task("train: [red]a", total=None)
    now = 61.0
    progress.update(task, completed=0, total=4)
    assert text.getvalue() == "train: [red]a: 0%\n"


def test_a_long_step_has_a_line_a_minute_too() -> None:
    """Before there is a task, there is nothing to say; later the same again, but never twice within a minute."""
    now, text = 0.0, io.StringIO()
    progress = ProgressLines(Console(file=text, width=80), get_time=lambda: now)
    now = 61.0
    progress.print_if_due()
    assert not text.getvalue()
    task = progress.add_task("time a few images", total=None)
    progress.print_if_due()
    progress.update(task, description="train: pi-1", completed=1, total=4)
    for later in (100.0, 122.0, 130.0, 183.0):
        now = later
        progress.print_if_due()
    assert text.getvalue().splitlines() == ["time a few images", "train: pi-1: 25%", "train: pi-1: 25%"]


def test_nothing_is_left_running() -> None:
    """The thread that reminds of long steps ends with the progress."""
    before = threading.active_count()
    with ProgressLines(Console(file=io.StringIO())):
        assert threading.active_count() == before + 1
    assert threading.active_count() == before

"""Terminal output: tables on stdout, and progress on stderr if that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from planner.units import OBJECTIVE_NAMES, format_objective, format_share

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def console() -> "Console":
    """Return the console that tables are printed on."""
    from rich.console import Console

    return Console()


def progress() -> "Progress":
    """Return progress bars with the time left; a line a minute where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from planner.cli.progress_lines import ProgressLines

    console = Console(stderr=True)
    if not sys.stderr.isatty():
        return ProgressLines(console)
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    # Steps may be minutes apart, so the time left is estimated from the last hour.
    return Progress(*columns, console=console, speed_estimate_period=3600)


@contextmanager
def counting(text: str) -> "Iterator[Callable[[int, int], None]]":
    """Show a progress bar on stderr, with the time left."""
    with progress() as bars:
        task = bars.add_task(text, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def status(text: str) -> Any:
    """Return a context that shows a text on stderr while work is done; silent unless stderr is a terminal."""
    from rich.console import Console

    return Console(stderr=True, quiet=not sys.stderr.isatty()).status(text)


@contextmanager
def solving(objective: str) -> "Iterator[Callable[[float | None, float], None]]":
    """Show plan, bound and gap on one line of stderr while solving."""
    with status("solving") as line:

        def show_bounds(best: float | None, bound: float) -> None:
            name = OBJECTIVE_NAMES[objective]
            plan = "no plan yet" if best is None else f"{name} {format_objective(objective, best)}"
            gap = f", gap {format_share(abs(best - bound) / best, 1)}" if best else ""
            line.update(f"solving: {plan}, bound {format_objective(objective, bound)}{gap}")

        yield show_bounds


def one_thread() -> None:
    """Keep torch on one thread: small trainings are several times slower on more."""
    import torch

    torch.set_num_threads(1)

"""What people see while they wait: tables on stdout, progress on stderr where that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def console() -> "Console":
    """Return where tables are printed."""
    from rich.console import Console

    return Console()


def progress() -> "Progress":
    """Return progress bars with the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    console = Console(stderr=True)
    # The speed is that of the last hour: steps may be minutes apart.
    return Progress(*columns, console=console, disable=not sys.stderr.isatty(), speed_estimate_period=3600)


@contextmanager
def counting(text: str) -> "Iterator[Callable[[int, int], None]]":
    """Show how many of a number of things are done, on stderr, with the time left."""
    with progress() as bars:
        task = bars.add_task(text, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def status(text: str) -> Any:
    """Return a context in which stderr says what is being done; silent where it is not a terminal."""
    from rich.console import Console

    return Console(stderr=True, quiet=not sys.stderr.isatty()).status(text)


@contextmanager
def solving(objective: str) -> "Iterator[Callable[[float | None, float], None]]":
    """Show plan, bound and gap on one line of stderr while solving."""
    with status("solving") as line:

        def show_bounds(best: float | None, bound: float) -> None:
            plan = "no plan yet" if best is None else f"plan {amount(objective, best)}"
            gap = f", gap {abs(best - bound) / best:.1%}" if best else ""
            line.update(f"solving: {plan}, bound {amount(objective, bound)}{gap}")

        yield show_bounds


def amount(objective: str, value: float) -> str:
    """Return an objective's value with its unit."""
    texts = {
        "latency": f"{value / 1000:.1f} ms",
        "energy": f"{value:.3f} mJ",
        "devices": f"{value:.0f} devices",
        "accuracy": f"retention {value:.3f}",
    }
    return texts[objective]


def one_thread() -> None:
    """Keep torch on one thread: small trainings are several times slower on more."""
    import torch

    torch.set_num_threads(1)

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
    return Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty())


def status(text: str) -> Any:
    """Return a context in which stderr says what is being done; silent where it is not a terminal."""
    from rich.console import Console

    return Console(stderr=True, quiet=not sys.stderr.isatty()).status(text)


@contextmanager
def solving() -> Iterator[Callable[[int | None, int], None]]:
    """Show plan, bound and gap on one line of stderr while solving."""
    with status("solving") as line:

        def show_bounds(best_us: int | None, bound_us: int) -> None:
            best = "no plan yet" if best_us is None else f"plan {best_us / 1000:.1f} ms"
            gap = "" if not best_us else f", gap {(best_us - bound_us) / best_us:.1%}"
            line.update(f"solving: {best}, bound {bound_us / 1000:.1f} ms{gap}")

        yield show_bounds


def one_thread() -> None:
    """Keep torch on one thread: small trainings are several times slower on more."""
    import torch

    torch.set_num_threads(1)

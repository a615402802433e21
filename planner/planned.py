"""The planner in Python: a plan that knows what it was made of, and the questions that one asks of it.

The names that `import planner` gives are defined here, or are those of the parts that they come from.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import PrivateAttr

from planner import shipped
from planner.check import check
from planner.errors import InputError
from planner.moves import moves_frame
from planner.report.frames import devices_frame
from planner.report.notebook import plan_html
from planner.report.text import headline
from planner.schema import (
    Fleet,
    Goal,
    Plan,
    Profile,
    ScenarioFile,
    nearest,
    read_document,
    write_document,
)
from planner.solver import DEFAULT_TIME_LIMIT_S
from planner.solver import solve as solve_plan
from planner.whatif.flags import Asked, axes_of
from planner.whatif.rows import frame_of
from planner.whatif.run import Today, all_rows, today_of
from planner.whatif.scenarios import posed
from planner.workers import chosen

if TYPE_CHECKING:
    import networkx as nx
    import plotly.graph_objects as go


# One text, or several.
Texts = str | Sequence[str]


class Planned(Plan):
    """A plan that also knows its profile and its fleet; the file of it is that of a plan.

    A notebook shows it as a table. It equals any plan that says the same.
    """

    _profile: Profile = PrivateAttr()
    _fleet: Fleet = PrivateAttr()

    @classmethod
    def of(cls, plan: Plan, profile: Profile, fleet: Fleet) -> "Planned":
        """Return a plan together with what it was made of, which is not compared here."""
        made = cls.model_validate({name: getattr(plan, name) for name in Plan.model_fields if name != "schema_uri"})
        made._profile, made._fleet = profile, fleet
        return made

    @property
    def profile(self) -> Profile:
        """What was measured of the model."""
        return self._profile

    @property
    def fleet(self) -> Fleet:
        """The devices and their links."""
        return self._fleet

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each device, the idle ones last; columns as in `report.frames.devices_frame`."""
        return devices_frame(self, self._profile, self._fleet)

    def to_graph(self) -> "nx.Graph":
        """Return the fleet as a graph: devices with their times and paths, links; see `report.graph.graph_of`."""
        from planner.report.graph import graph_of

        return graph_of(self, self._profile, self._fleet)

    def picture(self, name: str) -> "go.Figure":
        """Return a picture of the plan: timeline, kept, memory, classes or fleet_graph (plotly)."""
        from planner.report import pictures

        drawn = {
            "timeline": lambda: pictures.timeline(self, self._profile, self._fleet),
            "kept": lambda: pictures.kept(self, self._profile),
            "memory": lambda: pictures.memory(self, self._profile, self._fleet),
            "classes": lambda: pictures.classes(self, self._profile),
            "fleet_graph": lambda: pictures.fleet_graph(self, self._profile, self._fleet),
        }
        if name not in drawn:
            raise InputError(f"picture must be one of {', '.join(drawn)}, got {name!r}{nearest(name, drawn) or '.'}")
        return drawn[name]()

    def to_html(self, *, without: pd.DataFrame | None = None, fronts: "tuple[pd.DataFrame, ...]" = ()) -> str:
        """Return the whole page about the plan, as `planner report` writes it.

        Args:
            without: What-if rows of each device lost, `planner.what_if(plan, drop_each=True)`, to be shown with it.
            fronts: Pareto frames, `planner.pareto(plan, "accuracy")`, to be shown with it.
        """
        from planner.report.page import page

        return page(self, self._profile, self._fleet, without=without, fronts=fronts)

    def save(self, path: str | Path) -> None:
        """Write the plan.json, whole or not at all."""
        write_document(Path(path), self)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Plan) and self.model_dump() == other.model_dump()

    def replace(self, **changes: Any) -> "Planned":
        """Return a changed plan of the same profile and fleet; see `Frozen.replace`."""
        return Planned.of(super().replace(**changes), self._profile, self._fleet)

    def __repr__(self) -> str:
        return f"<{headline(self)}>"

    def __str__(self) -> str:
        return headline(self)

    def _repr_html_(self) -> str:
        return plan_html(self, self._profile, self._fleet)


def solve(
    profile: Profile | str | Path,
    fleet: Fleet,
    goal: Goal | None = None,
    *,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    deterministic: bool = False,
    start: Plan | None = None,
    seed: int = 0,
) -> Planned:
    """Return the best plan of a model on a fleet, with a bound on how much better any other could be.

    Args:
        profile: What was measured of the model; or the name of a shipped profile, or a file.
        fleet: The devices and their links.
        goal: What the plan must hold, and its objective; least latency at an accuracy drop of 2 points unless given.
        time_limit_s: After this long the best plan so far is returned, with its gap.
        deterministic: Count work instead of seconds, so that the same plan comes out on every machine.
        start: An earlier plan: of plans equally good, the one nearest to it is returned.
        seed: For the yardsticks' random subsets; the exact method draws nothing.

    Raises:
        InputError: If an argument is not what it must be, or the arguments do not go together.
        InfeasibleError: If no plan exists; the message says why and what would help.
        TimeLimitError: If no plan was found in time, though one may exist.
    """
    profile = _profile_of(profile)
    _must_be(fleet, Fleet, "fleet", "planner.load_fleet reads one")
    _must_be(goal, (Goal, type(None)), "goal", "planner.Goal(max_accuracy_drop=0.05) is one")
    _must_be(start, (Plan, type(None)), "start", "planner.load_plan reads one")
    _must_be_time(time_limit_s)
    plan = solve_plan(
        profile, fleet, goal, seed=seed, time_limit_s=time_limit_s, deterministic=deterministic, start=start
    )
    return Planned.of(plan, profile, fleet)


def load_plan(path: str | Path, profile: Profile | str | Path, fleet: Fleet) -> Planned:
    """Read a plan.json together with what it was made of; it is checked against both.

    Raises:
        InputError: If the file cannot be used, or the plan is not a valid one for this profile and fleet.
    """
    profile = _profile_of(profile)
    _must_be(fleet, Fleet, "fleet", "planner.load_fleet reads one")
    plan = shipped.load_plan(path)
    if problems := check(plan, profile, fleet):
        raise InputError(f"{path}: {problems[0]}.")
    return Planned.of(plan, profile, fleet)


def what_if(
    plan: Planned,
    *,
    drop: Texts = (),
    drop_each: bool = False,
    add: Texts = (),
    add_each: Texts = (),
    set: Texts = (),
    scale: Texts = (),
    sweep: Texts = (),
    scenarios: str | Path | None = None,
    cross: bool = False,
    jobs: int = 1,
    scheduler: str | None = None,
    time_limit_s: float = DEFAULT_TIME_LIMIT_S,
    seed: int = 0,
) -> pd.DataFrame:
    """Return what becomes of a plan when its fleet or its goal changes: a row for each change, "today" first.

    The changes are written as on the command line, `planner what-if --help`; where one text is taken, a list is,
    too. Each is a scenario of its own, which starts from the plan.

    Args:
        plan: The plan that runs today.
        drop: Devices that are lost: "pump", or "pump,vent-1" for both at once.
        drop_each: Each device for itself.
        add: More devices: "esp32-s3" or "esp32-s3=2", a kind or a device that one more of is wanted.
        add_each: Kinds, "esp32-s3,rp2350", each for itself.
        set: "pump.memory_budget=512KiB", a device's or its links' number.
        scale: "memory=0.5..2/7", "bandwidth=0.5,2" or "latency=2": factors on all of a fleet's.
        sweep: "max-accuracy-drop=0.01,0.05", a key of the goal.
        scenarios: A file of named scenarios.
        cross: Every combination instead.
        jobs: Processes side by side. A script that asks for more than one needs `if __name__ == "__main__":`.
        scheduler: A Dask cluster's address instead.
        time_limit_s: For each scenario.
        seed: For the yardsticks' random subsets.

    Returns:
        Columns: status, latency_us, change_us, bound_us, gap, bottleneck, devices_used, memory_bytes, energy_mj,
        lowest_retention, predicted_accuracy, classes_moved, bytes_to_send, reason (why there is no plan), seconds.

    Raises:
        InputError: If a change is a mistake; before anything is solved.
    """
    today = _today(plan, time_limit_s, seed)
    asked = Asked(
        drop=_texts(drop),
        drop_each=drop_each,
        add=_texts(add),
        add_each=_texts(add_each),
        set=_texts(set),
        scale=_texts(scale),
        sweep=_texts(sweep),
        scenarios=None if scenarios is None else read_document(Path(scenarios), ScenarioFile),
    )
    changes = posed(axes_of(asked, plan.fleet), today.case, cross)
    with chosen(None if scheduler else jobs, scheduler) as workers:
        return frame_of(all_rows(today, changes, workers))


def diff(earlier: Planned, plan: Planned) -> pd.DataFrame:
    """Return what moves from one plan to another: a row for each device whose sub-model is another.

    Columns: gains, loses (classes), bytes_to_send.

    Raises:
        InputError: If the plans are of different profiles.
    """
    _must_be(earlier, Planned, "the earlier plan", "planner.solve and planner.load_plan make one")
    _must_be(plan, Planned, "the later plan", "planner.solve and planner.load_plan make one")
    if earlier.profile_sha256 != plan.profile_sha256:
        raise InputError(
            f"plans must be of one profile, got {earlier.profile_sha256[:12]}... and {plan.profile_sha256[:12]}..."
        )
    return moves_frame(earlier, plan, plan.profile)


def _today(plan: Planned, time_limit_s: float, seed: int) -> Today:
    _must_be(plan, Planned, "plan", "planner.solve and planner.load_plan make one")
    _must_be_time(time_limit_s)
    return today_of(plan.profile, plan.fleet, start=plan, seed=seed, time_limit_s=time_limit_s)


def _texts(texts: Texts) -> tuple[str, ...]:
    return (texts,) if isinstance(texts, str) else tuple(texts)


def _must_be_time(time_limit_s: float) -> None:
    if not time_limit_s >= 0:
        raise InputError(f"time_limit_s must be >= 0, got {time_limit_s}.")


def _profile_of(profile: Profile | str | Path) -> Profile:
    if isinstance(profile, (str, Path)):
        return shipped.load_profile(profile)
    _must_be(profile, Profile, "profile", "planner.load_profile reads one")
    return profile


def _must_be(value: Any, kind: type | tuple[type, ...], what: str, hint: str) -> None:
    if not isinstance(value, kind):
        wanted = kind[0] if isinstance(kind, tuple) else kind
        raise InputError(
            f"{what} must be a {wanted.__name__} ({hint}), got {type(value).__name__} {str(value)[:60]!r}."
        )

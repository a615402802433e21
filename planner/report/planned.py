"""Plan together with its profile and its fleet, so that it can show itself."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import PrivateAttr

from planner.errors import InputError
from planner.report.frames import devices_frame
from planner.report.notebook import plan_html
from planner.report.text import headline
from planner.schema import Fleet, Plan, Profile, did_you_mean, write_document

if TYPE_CHECKING:
    import networkx as nx
    import plotly.graph_objects as go


class Planned(Plan):
    """Plan that also knows its profile and its fleet; its file is that of a plan.

    A notebook shows it as a table. It equals any plan with the same fields.
    """

    _profile: Profile = PrivateAttr()
    _fleet: Fleet = PrivateAttr()

    @classmethod
    def of(cls, plan: Plan, profile: Profile, fleet: Fleet) -> "Planned":
        """Return a plan together with its profile and fleet; whether they belong together is not checked."""
        made = cls.model_validate({name: getattr(plan, name) for name in Plan.model_fields if name != "schema_uri"})
        made._profile, made._fleet = profile, fleet
        return made

    @property
    def profile(self) -> Profile:
        """Profile of the model that is planned."""
        return self._profile

    @property
    def fleet(self) -> Fleet:
        """Fleet that is planned: devices and their links."""
        return self._fleet

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each device, the idle ones last; columns as in `report.frames.devices_frame`."""
        return devices_frame(self, self._profile, self._fleet)

    def to_graph(self) -> "nx.Graph":
        """Return the fleet as a graph: devices with their times and paths, links; see `report.graph.fleet_graph`."""
        from planner.report.graph import fleet_graph

        return fleet_graph(self, self._profile, self._fleet)

    def picture(self, name: str) -> "go.Figure":
        """Return a plotly figure of the plan: timeline, kept, memory, classes or fleet_graph."""
        from planner.report import plots

        figures: dict[str, Callable[[], go.Figure]] = {
            "timeline": lambda: plots.timeline_plot(self, self._profile, self._fleet),
            "kept": lambda: plots.kept_plot(self, self._profile),
            "memory": lambda: plots.memory_plot(self, self._profile, self._fleet),
            "classes": lambda: plots.classes_plot(self, self._profile),
            "fleet_graph": lambda: plots.fleet_graph_plot(self, self._profile, self._fleet),
        }
        if name not in figures:
            raise InputError(
                f"picture must be one of {', '.join(figures)}, got {name!r}{did_you_mean(name, figures) or '.'}"
            )
        return figures[name]()

    def to_html(self, *, without: pd.DataFrame | None = None, fronts: Sequence[pd.DataFrame] = ()) -> str:
        """Return the whole page about the plan as HTML, as `planner report` writes it.

        Args:
            without: What-if rows of each device lost, `planner.what_if(plan, drop_each=True)`, to be shown too.
            fronts: Pareto frames, such as `planner.pareto(plan, "accuracy")`, to be shown too.
        """
        from planner.report.page import page

        return page(self, self._profile, self._fleet, without=without, fronts=fronts)

    def save(self, path: str | Path) -> None:
        """Write the plan as a plan.json, whole or not at all."""
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

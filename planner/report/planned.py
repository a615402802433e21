"""A plan that knows what it was made of, so that it can show itself."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import PrivateAttr

from planner.errors import InputError
from planner.report.frames import devices_frame
from planner.report.notebook import plan_html
from planner.report.text import headline
from planner.schema import Fleet, Plan, Profile, nearest, write_document

if TYPE_CHECKING:
    import networkx as nx
    import plotly.graph_objects as go


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
        from planner.report import plots

        drawn: dict[str, Callable[[], go.Figure]] = {
            "timeline": lambda: plots.timeline_plot(self, self._profile, self._fleet),
            "kept": lambda: plots.kept_plot(self, self._profile),
            "memory": lambda: plots.memory_plot(self, self._profile, self._fleet),
            "classes": lambda: plots.classes_plot(self, self._profile),
            "fleet_graph": lambda: plots.fleet_graph_plot(self, self._profile, self._fleet),
        }
        if name not in drawn:
            raise InputError(f"picture must be one of {', '.join(drawn)}, got {name!r}{nearest(name, drawn) or '.'}")
        return drawn[name]()

    def to_html(self, *, without: pd.DataFrame | None = None, fronts: Sequence[pd.DataFrame] = ()) -> str:
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

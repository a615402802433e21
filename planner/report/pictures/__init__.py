"""Pictures of plans, profiles and what-ifs, for pages and notebooks: each function returns a plotly figure.

The numbers come from the frames beside this package; the drawing adds nothing to them.
"""

from planner.errors import PlannerError

try:
    import plotly  # noqa: F401
except ImportError:
    raise PlannerError("Pictures need plotly, which is not installed: pip install 'vit-planner[report]'.") from None

from planner.report.pictures.budgets import memory
from planner.report.pictures.fleets import fleet_graph
from planner.report.pictures.fronts import pareto
from planner.report.pictures.maps import classes, importance, kept
from planner.report.pictures.times import timeline
from planner.report.pictures.what_ifs import what_if

__all__ = ["classes", "fleet_graph", "importance", "kept", "memory", "pareto", "timeline", "what_if"]

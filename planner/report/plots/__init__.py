"""Plots of plans, profiles and what-ifs, for pages and notebooks: each function returns a plotly figure.

The numbers come from the frames beside this package; the plots add none.
"""

from planner.errors import PlannerError

try:
    import plotly  # noqa: F401
except ImportError:
    raise PlannerError("Plots need plotly, which is not installed: pip install 'vit-planner[report]'.") from None

from planner.report.plots.budgets import memory_plot
from planner.report.plots.fleets import fleet_graph_plot
from planner.report.plots.fronts import pareto_plot
from planner.report.plots.maps import classes_plot, importance_plot, kept_plot
from planner.report.plots.rehearsals import rehearsal_plot
from planner.report.plots.times import timeline_plot
from planner.report.plots.what_ifs import what_if_plot

__all__ = [
    "classes_plot",
    "fleet_graph_plot",
    "importance_plot",
    "kept_plot",
    "memory_plot",
    "pareto_plot",
    "rehearsal_plot",
    "timeline_plot",
    "what_if_plot",
]

"""Pictures of plans, profiles and what-ifs, for pages and notebooks: each function returns a plotly figure."""

from planner.errors import PlannerError

try:
    import plotly  # noqa: F401
except ImportError:
    raise PlannerError("Pictures need plotly, which is not installed: pip install 'vit-planner[report]'.") from None

"""A plan with hostile names: markup, scripts, templates, formulas and very long ones."""

from functools import lru_cache

from planner.schema import Fleet, Goal, Plan, Profile
from planner.solver import SolveOptions, solve
from tests.helpers.random_instances import random_profile

LONG = "long-" + "x" * 191 + "-end"
CLASSES = (
    "<script>window.ran = 1</script>",
    "</script><script>window.ran = 1</script>",
    '" onmouseover="window.ran = 1',
    "<b>bold</b>",
    "{{ 7*7 }}",
    "$\\alpha$",
    LONG,
    "&lt;",
)
HOSTILE_DEVICES = (
    "<img src=x onerror='window.ran=1'>",
    "🦆 duck %{x}",
    '<a href="javascript:window.ran=1">go</a>',
    "d" + LONG[:-1],
)


@lru_cache
def hostile() -> tuple[Plan, Profile, Fleet]:
    """Return the plan, its profile and its fleet."""
    drawn = random_profile(1, num_classes=len(CLASSES), depth=3, num_groups=4, widths=(16,))
    profile = Profile.model_validate(drawn.model_dump(mode="json") | {"classes": CLASSES, "model": "<i>model</i>"})
    devices = [
        {"name": name, "macs_per_second": 1e6, "memory_budget": "2MiB", "runtime_overhead": 0}
        for name in HOSTILE_DEVICES
    ]
    link = {"bandwidth_mbps": 10.0, "latency_ms": 0.01}
    fleet = Fleet.model_validate(
        {"name": "<u>fleet</u> & co", "aggregator": HOSTILE_DEVICES[0], "devices": devices, "default_link": link}
    )
    options = SolveOptions(time_limit_s=5, deterministic=True)
    return solve(profile, fleet, Goal(min_retention=0.3, survive=1), options), profile, fleet

"""scenarios.json: changes to a fleet and a goal, each set of them with a name."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.schema.base import Document, Frozen
from planner.schema.fleet import Device, Link, Name
from planner.schema.goal import Goal

Quantity = Literal["memory", "bandwidth", "latency"]
Factor = Annotated[float, Field(gt=0, le=1e9)]
# What `--set` may give: a number, a size or a name, a list of precisions, or null for "not given".
SettingChange = int | float | str | tuple[str, ...] | None

# What a scenario without a change is called.
TODAY = "today"


class GoalChanges(Goal):
    """Keys of a goal that are another; those that are not given stay as they are."""

    @model_validator(mode="after")
    def _is_whole(self) -> "GoalChanges":
        # Only together with today's goal they are a whole one.
        return self


class ScenarioEntry(Frozen):
    """A changed fleet and goal: the changes are made in the order of these keys."""

    name: Name
    """What its row is called."""
    drop: tuple[Name, ...] = Field((), description="Devices that are lost; the name of a device with a count is all.")
    add: dict[Name, Annotated[int, Field(ge=1, le=10_000)]] = Field(
        default_factory=dict, description="How many more of a kind, or of a device of the fleet."
    )
    devices: tuple[Device, ...] = Field((), description="New devices, described in full.")
    links: tuple[Link, ...] = Field((), description="New links.")
    set: dict[str, SettingChange] = Field(
        default_factory=dict, description='Keys of devices or of their links: {"pump.memory_budget": "512KiB"}.'
    )
    scale: dict[Quantity, Factor] = Field(
        default_factory=dict, description="All memory budgets, or all links' bandwidths or latencies, times this."
    )
    goal: GoalChanges | None = None
    """Keys of the goal that are another."""


class ScenarioFile(Document):
    """Named scenarios."""

    scenarios: tuple[ScenarioEntry, ...] = Field(min_length=1)
    """Each is a row."""

    @model_validator(mode="after")
    def _names_differ(self) -> "ScenarioFile":
        names = [scenario.name for scenario in self.scenarios]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"scenarios: names must differ, {name!r} is used {names.count(name)} times")
        if TODAY in names:
            raise ValueError(f"scenarios: {TODAY!r} is the name of the fleet as it is: give the scenario another")
        return self

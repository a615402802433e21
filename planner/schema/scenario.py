"""scenarios.json: named sets of changes to a fleet and a goal."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from planner.schema.base import Document, Frozen
from planner.schema.fleet import Device, Link
from planner.schema.goal import Goal
from planner.schema.quantities import Coefficient
from planner.schema.text import Name, check_names_differ

Quantity = Literal["memory", "storage", "bandwidth", "latency"]
Factor = Annotated[float, Field(gt=0, le=1e9)]
# A new value of a key: a number, a size or a name, a list of precisions, or null for "not given".
_Word = Annotated[str, Field(max_length=1000)]
SettingChange = Annotated[int, Field(ge=-(2**63), lt=2**63)] | Coefficient | _Word | tuple[_Word, ...] | None

# Name of the scenario without a change.
TODAY = "today"


class GoalChanges(Goal):
    """Changed keys of a goal; those that are not given stay as they are."""

    @model_validator(mode="after")
    def _is_whole(self) -> "GoalChanges":
        # A whole goal comes about only together with today's keys.
        return self


class ScenarioEntry(Frozen):
    """Scenario: a changed fleet and goal; the changes are made in the order of these keys."""

    name: Name
    """Name of the scenario's row."""
    drop: tuple[Name, ...] = Field(
        (), description="Lost devices; the name of a device with a count stands for all of them."
    )
    add: dict[Name, Annotated[int, Field(ge=1, le=10_000)]] = Field(
        default_factory=dict,
        description="Number of devices to add, by kind or by a device of the fleet that they are like.",
    )
    devices: tuple[Device, ...] = Field((), description="New devices with all their keys.")
    links: tuple[Link, ...] = Field((), description="New links.")
    set: dict[_Word, SettingChange] = Field(
        default_factory=dict,
        description='New values for keys of devices or of their links: {"pump.memory_budget": "512KiB"}.',
    )
    scale: dict[Quantity, Factor] = Field(
        default_factory=dict,
        description="Factors on all memory or storage budgets, or on the bandwidths or latencies of all links.",
    )
    goal: GoalChanges | None = None
    """Changed keys of the goal."""


class ScenarioFile(Document):
    """File of named scenarios."""

    scenarios: tuple[ScenarioEntry, ...] = Field(min_length=1)
    """Scenarios, each of which becomes a row."""

    @model_validator(mode="after")
    def _names_differ(self) -> "ScenarioFile":
        names = [scenario.name for scenario in self.scenarios]
        check_names_differ(names, "scenarios")
        if TODAY in names:
            raise ValueError(f"scenarios: {TODAY!r} is the name of the fleet as it is: give the scenario another")
        return self

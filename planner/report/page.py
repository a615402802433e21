"""A plan as one page that holds everything it needs: pictures, tables, certificate, how to make it again."""

import base64
import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import pandas as pd
from markupsafe import Markup

from planner.library import folder, load_profile
from planner.report.graph import graph_of
from planner.report.page_tables import (
    MOST_IDLE,
    Table,
    classes_table,
    devices_table,
    front_table,
    hops_table,
    importance_table,
    kept_table,
    memory_table,
    scenarios_table,
    times_table,
)
from planner.report.plots import (
    classes_plot,
    fleet_graph_plot,
    importance_plot,
    kept_plot,
    memory_plot,
    pareto_plot,
    timeline_plot,
    what_if_plot,
)
from planner.report.plots.style import plotly_script, untitled
from planner.report.reproduce import commands, goal_file
from planner.report.text import headline
from planner.schema import Fleet, Goal, Plan, Profile, sha256_of, to_json
from planner.units import counted, ms, percent, short, visible
from planner.version import __version__

if TYPE_CHECKING:
    # At run time the pictures say what to do where it is not installed.
    import plotly.graph_objects as go

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Shown:
    """A picture on the page: what it says in words, how to read it, its data, and the same numbers as a table."""

    id: str
    title: str
    note: str
    how: str
    height: int
    data: Markup
    table: Table

    @property
    def words(self) -> str:
        """What a screen reader says of the picture."""
        return f"Picture: {self.title}. {self.note}".strip()


@dataclass(frozen=True)
class Section:
    """A part of the page under a heading."""

    id: str
    heading: str
    texts: tuple[str, ...] = ()
    pictures: tuple[Shown, ...] = ()
    table: Table | None = None


def page(
    plan: Plan, profile: Profile, fleet: Fleet, *, without: pd.DataFrame | None, fronts: Sequence[pd.DataFrame]
) -> str:
    """Return a whole HTML page that loads nothing from anywhere.

    Args:
        plan: A valid plan for this fleet.
        profile: What it was planned with.
        fleet: Likewise.
        without: What-if rows, "today" first, then the loss of each device; None where that was not asked.
        fronts: Pareto frames, each against another thing.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    plotly, script = plotly_script(), (_TEMPLATES / "page.js").read_text("utf-8")
    sections = [*_plan_sections(plan, profile, fleet), *_what_if_sections(plan, without, fronts)]
    name = visible(fleet.name)
    return environment.get_template("page.html.jinja").render(
        title=f"{name}: one image in {ms(plan.latency_us)}",
        summary=visible(
            f"{profile.model} ({counted(len(profile.classes), 'class')}) on {len(plan.assignments):,} of "
            f"{counted(len(fleet.members), 'device')}. {headline(plan)}."
        ),
        policy=_policy(plotly, script),
        css=Markup((_TEMPLATES / "page.css").read_text("utf-8")),
        plotly=Markup(plotly),
        script=Markup(script),
        cards=_cards(plan, profile, fleet),
        notes=_notes(plan),
        sections=sections,
        meaning=_meaning(plan),
        certificate=_certificate(plan, profile, fleet),
        again=_again(plan, profile, fleet),
        version=__version__,
    )


def _plan_sections(plan: Plan, profile: Profile, fleet: Fleet) -> Iterator[Section]:
    yield _section(
        "time",
        "One image over the fleet",
        timeline_plot(plan, profile, fleet),
        times_table(plan),
        "A bar for each device, from left to right: the image is sent there, computed, and its features return. "
        f"Then {short(plan.fusion.device, 30)} joins all features, {ms(plan.fusion.latency_us)}. "
        "The marked device is the slowest.",
    )
    yield _section(
        "fleet",
        "The fleet",
        fleet_graph_plot(plan, profile, fleet),
        hops_table(graph_of(plan, profile, fleet)),
        "Messages go over the lines: above a line the image's time to the device, below it that of its features back.",
    )
    yield _section(
        "classes",
        "Which classes are where",
        classes_plot(plan, profile),
        classes_table(plan, profile),
        "The darker a cell, the more of the class's importance its device retains [%].",
    )
    yield _section(
        "kept",
        "What each device keeps",
        kept_plot(plan, profile),
        kept_table(plan, profile),
        "Of the whole model's heads and hidden channels in each block; the darker, the more. Blocks count from 0.",
    )
    yield _section(
        "memory",
        "Memory",
        memory_plot(plan, profile, fleet),
        memory_table(plan, fleet),
        "Weights, activations and the runtime within what each device grants.",
    )
    yield _section(
        "importance",
        "Which blocks each class needs",
        importance_plot(profile),
        importance_table(profile),
        "Measured on the whole model: each class's importance, all blocks together 100 %.",
    )
    yield Section("devices", "Every device", _idle(plan, fleet), table=devices_table(plan, profile, fleet))


def _idle(plan: Plan, fleet: Fleet) -> tuple[str, ...]:
    """Return how many devices of each kind are idle, where they are too many to be listed."""
    if len(plan.idle) <= MOST_IDLE:
        return ()
    idle = set(plan.idle)
    kinds = Counter(member.kind or "of no kind" for member in fleet.members if member.name in idle)
    each = ", ".join(f"{number:,} {kind}" for kind, number in kinds.most_common())
    return (visible(f"{len(idle):,} more devices are idle: {each}."),)


def _what_if_sections(plan: Plan, without: pd.DataFrame | None, fronts: Sequence[pd.DataFrame]) -> Iterator[Section]:
    if without is not None and len(without) > 1:
        asked = len(without) - 1
        text = "Each time one device is gone and the rest is planned anew, with its own proof."
        if asked < len(plan.assignments):
            text += f" Asked for the {asked} slowest of {len(plan.assignments):,} devices in use."
        how = "What the latency would change by; without a bar there is no plan, and the reason is given."
        yield _section("without", "If a device is lost", what_if_plot(without), scenarios_table(without), how, text)
    for frame in fronts:
        if len(frame):
            against = str(frame["against"].iloc[0])
            how = "Each point is a plan of its own; no plan of its limit can be below the bar that is its bound."
            yield _section(
                f"front-{against}", f"Latency against {against}", pareto_plot(frame), front_table(frame), how
            )


def _section(id: str, heading: str, figure: "go.Figure", table: Table, how: str, *texts: str) -> Section:
    bare = untitled(figure)
    bare.update_xaxes(fixedrange=True).update_yaxes(fixedrange=True)
    meta = figure.layout.meta
    shown = Shown(
        id, visible(meta["title"]), visible(meta["note"]), visible(how), int(bare.layout.height), _data(bare), table
    )
    return Section(id, heading, texts, (shown,))


def _data(figure: "go.Figure") -> Markup:
    """Return a figure as JSON that ends no script: what it says of names is data."""
    text = str(figure.update_layout(meta=None).to_json())
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _policy(*scripts: str) -> str:
    """Return the page's content security policy: these two scripts, no network. Plotly writes styles of its own."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{text}'" for text in hashes)
    rules = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:"
    return f"{rules}; base-uri 'none'; form-action 'none'"


def _cards(plan: Plan, profile: Profile, fleet: Fleet) -> Iterator[tuple[str, str]]:
    yield "Status", "proven optimal" if plan.status == "optimal" else "feasible, not proven optimal"
    yield "Latency of one image", ms(plan.latency_us)
    yield "No plan is faster than", ms(plan.bound_us)
    if plan.objective_value is not None:
        yield f"Objective: {plan.goal.objective}", f"{plan.value:,.4g}, bound {plan.bound:,.4g}"
    yield "Gap", f"{100 * plan.gap:.1f} %"
    yield "Bottleneck", visible(plan.bottleneck.device)
    yield "Devices in use", f"{len(plan.assignments):,} of {len(fleet.members):,}"
    yield "Lowest retention", percent(plan.lowest_retention)
    if plan.predicted_accuracy is not None:
        said = plan.predicted_accuracy
        yield "Predicted accuracy", f"{said.accuracy:.1%} ± {100 * said.error:.1f} points"
    if profile.fused_accuracy is not None and profile.fused_accuracy.whole_error is not None:
        yield "Accuracy of the whole model", f"{1 - profile.fused_accuracy.whole_error:.1%}"
    if plan.energy_mj is not None:
        yield "Energy of one image", f"{plan.energy_mj:.2f} mJ"


def _notes(plan: Plan) -> Iterator[str]:
    if any(a.estimated for a in plan.assignments):
        some = "All" if all(a.estimated for a in plan.assignments) else "Some"
        yield f"{some} compute times are estimated from declared MAC rates, not measured."


def _meaning(plan: Plan) -> str:
    judged = {
        "latency": "latency",
        "accuracy": "lowest retention",
        "energy": "energy",
        "devices": "number of devices",
    }[plan.goal.objective]
    if plan.status == "optimal":
        return f"The {judged} meets its bound: under this goal, with this profile and fleet, no plan is better."
    return (
        f"The {judged} is within {100 * plan.gap:.1f} % of its bound: a better plan may exist, "
        "but none beyond the bound."
    )


def _certificate(plan: Plan, profile: Profile, fleet: Fleet) -> Iterator[tuple[str, str]]:
    yield "Status", plan.status
    yield "Latency", f"{plan.latency_us:,} µs"
    yield "Bound of the latency", f"{plan.bound_us:,} µs"
    if plan.objective_value is not None and plan.objective_bound is not None:
        yield f"Objective: {plan.goal.objective}", f"{plan.objective_value:g}, bound {plan.objective_bound:g}"
    yield "Gap", f"{100 * plan.gap:.4g} %"
    yield "Solver", plan.solver.version
    yield "Time to solve", f"{plan.solver.seconds:.1f} s"
    yield "Seed", str(plan.solver.seed)
    yield "Goal", _goal(plan.goal)
    yield "Profile SHA-256", sha256_of(profile)
    yield "Fleet SHA-256", sha256_of(fleet)
    yield "Plan SHA-256", sha256_of(plan)
    yield "Page made by", f"planner {__version__}"


def _goal(goal: Goal) -> str:
    """Return what was asked for: objective, floor and method, and whatever else is not the default."""
    default = Goal().model_dump(mode="json")
    always = {"objective", "method", "max_accuracy_drop" if goal.min_retention is None else "min_retention"}
    fields = goal.model_dump(mode="json", exclude_none=True)
    asked = {key: value for key, value in fields.items() if key in always or value != default[key]}
    words = {key: json.dumps(v, ensure_ascii=False) if isinstance(v, (dict, list)) else v for key, v in asked.items()}
    return visible("; ".join(f"{key.replace('_', ' ')} {value}" for key, value in words.items()))


def _again(plan: Plan, profile: Profile, fleet: Fleet) -> dict[str, object]:
    known = _is_shipped(profile)
    files = [("devices.json", to_json(fleet))]
    if (goal := goal_file(plan.goal)) is not None:
        files.append(("goal.json", goal))
    text = f"Put {' and '.join(name for name, _ in files)} below into a folder, and there:"
    if not known:
        text = f"You need the profile with the SHA-256 above as profile.json. {text}"
    return {"text": text, "commands": commands(plan, profile.model if known else "profile.json"), "files": files}


def _is_shipped(profile: Profile) -> bool:
    """Say whether the profile comes along, under its model's name."""
    known = {path.stem for path in folder("profiles").glob("*.json")}
    return profile.model in known and sha256_of(load_profile(profile.model)) == sha256_of(profile)

"""Self-contained HTML page about a plan: plots, tables, certificate, and the commands to reproduce it."""

import base64
import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import pandas as pd
from markupsafe import Markup

from planner.report.graph import fleet_graph
from planner.report.page_facts import certificate, key_figures, notes, status_text
from planner.report.page_tables import (
    TextTable,
    classes_table,
    devices_table,
    front_table,
    hops_table,
    importance_table,
    kept_table,
    memory_table,
    rehearsed_latencies_table,
    rehearsed_memory_table,
    scenarios_table,
    steps_table,
    times_table,
)
from planner.report.plots import (
    classes_plot,
    fleet_graph_plot,
    importance_plot,
    kept_plot,
    memory_plot,
    pareto_plot,
    rehearsal_plot,
    timeline_plot,
    what_if_plot,
)
from planner.report.plots.style import plotly_script, without_title
from planner.report.rehearsal_text import rehearsal_notes
from planner.report.reproduce import reproduction
from planner.report.text import headline, idle_lines
from planner.schema import Fleet, Plan, Profile, Rehearsal
from planner.units import count_noun, format_time_us, shorten, visible
from planner.version import __version__

if TYPE_CHECKING:
    # At run time the package of the plots says what to install where plotly is missing.
    import plotly.graph_objects as go

_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class PagePlot:
    """Plot on the page: its message in words, how to read it, its data, and the same numbers as a table."""

    id: str
    title: str
    note: str
    how_to_read: str
    height: int
    data: Markup
    table: TextTable

    @property
    def spoken(self) -> str:
        """Text that a screen reader reads in place of the plot."""
        return f"Plot: {self.title}. {self.note}".strip()


@dataclass(frozen=True)
class Section:
    """Part of the page under a heading."""

    id: str
    heading: str
    texts: tuple[str, ...] = ()
    plots: tuple[PagePlot, ...] = ()
    table: TextTable | None = None


def page(
    plan: Plan,
    profile: Profile,
    fleet: Fleet,
    *,
    without: pd.DataFrame | None,
    fronts: Sequence[pd.DataFrame],
    rehearsal: Rehearsal | None = None,
) -> str:
    """Return a whole HTML page that loads nothing from anywhere.

    Args:
        plan: Valid plan for this fleet.
        profile: Profile that the plan was made with.
        fleet: Fleet that the plan was made for.
        without: What-if rows, "today" first, then the loss of each device; None leaves the section out.
        fronts: Pareto frames: latency against accuracy, memory or energy.
        rehearsal: Rehearsal of a bundle of this plan, to be shown too.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    plotly, script = plotly_script(), (_TEMPLATES / "page.js").read_text("utf-8")
    sections = [
        *_plan_sections(plan, profile, fleet),
        *_rehearsal_sections(rehearsal),
        *_what_if_sections(plan, without, fronts),
    ]
    return environment.get_template("page.html.jinja").render(
        title=f"{visible(fleet.name)}: one image in {format_time_us(plan.latency_us)}",
        summary=(
            f"{visible(profile.model)} ({count_noun(len(profile.classes), 'class')}) on {len(plan.assignments):,} of "
            f"{count_noun(len(fleet.members), 'device')}. {headline(plan)}."
        ),
        policy=_policy(plotly, script),
        css=Markup((_TEMPLATES / "page.css").read_text("utf-8")),
        plotly=Markup(plotly),
        script=Markup(script),
        key_figures=key_figures(plan, profile, fleet),
        notes=notes(plan),
        sections=sections,
        meaning=status_text(plan),
        certificate=certificate(plan, profile, fleet),
        reproduction=reproduction(plan, profile, fleet),
        version=__version__,
    )


def _plan_sections(plan: Plan, profile: Profile, fleet: Fleet) -> Iterator[Section]:
    yield _section(
        "time",
        "One image over the fleet",
        timeline_plot(plan, profile, fleet),
        times_table(plan),
        "A bar for each device, from left to right: the image is sent there, computed, and its features return. "
        f"Then {shorten(plan.fusion.device, 30)} joins all features, {format_time_us(plan.fusion.latency_us)}. "
        "The marked device is the slowest.",
    )
    yield _section(
        "fleet",
        "The fleet",
        fleet_graph_plot(plan, profile, fleet),
        hops_table(fleet_graph(plan, profile, fleet)),
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
        "Weights, activations and the runtime within what each device grants; weights in flash are storage.",
    )
    yield _section(
        "importance",
        "Which blocks each class needs",
        importance_plot(profile),
        importance_table(profile),
        "Measured on the whole model: each class's importance, all blocks together 100 %.",
    )
    yield Section("devices", "Every device", idle_lines(plan, fleet), table=devices_table(plan, profile, fleet))


def _rehearsal_sections(rehearsal: Rehearsal | None) -> Iterator[Section]:
    if rehearsal is None:
        return
    yield _section(
        "rehearsal",
        "Predicted and measured",
        rehearsal_plot(rehearsal),
        rehearsed_latencies_table(rehearsal),
        "The wide bar is what the plan predicts, the narrow one what was measured here in a rehearsal.",
        *rehearsal_notes(rehearsal),
    )
    yield Section("steps", "Every step, predicted and measured", table=steps_table(rehearsal))
    yield Section(
        "rehearsed-memory",
        "Memory, planned and measured",
        ("The peak of a worker here has this machine's interpreter and libraries in it.",),
        table=rehearsed_memory_table(rehearsal),
    )


def _what_if_sections(plan: Plan, without: pd.DataFrame | None, fronts: Sequence[pd.DataFrame]) -> Iterator[Section]:
    if without is not None and len(without) > 1:
        num_lost = len(without) - 1
        text = "Each time one device is gone and the rest is planned anew, with its own proof."
        if num_lost < len(plan.assignments):
            text += f" Solved for the {num_lost} slowest of {len(plan.assignments):,} devices in use."
        how_to_read = "What the latency would change by; without a bar there is no plan, and the reason is given."
        yield _section(
            "without", "If a device is lost", what_if_plot(without), scenarios_table(without), how_to_read, text
        )
    for frame in fronts:
        if len(frame):
            against = str(frame["against"].iloc[0])
            how_to_read = (
                "Each point is a plan of its own; no plan of its limit can be below the bar that is its bound."
            )
            heading = f"Latency against {against}"
            yield _section(f"front-{against}", heading, pareto_plot(frame), front_table(frame), how_to_read)


def _section(id: str, heading: str, figure: "go.Figure", table: TextTable, how_to_read: str, *texts: str) -> Section:
    bare = without_title(figure)
    bare.update_xaxes(fixedrange=True).update_yaxes(fixedrange=True)
    title, note = (visible(figure.layout.meta[key]) for key in ("title", "note"))
    plot = PagePlot(id, title, note, how_to_read, int(bare.layout.height), _data(bare), table)
    return Section(id, heading, texts, (plot,))


def _data(figure: "go.Figure") -> Markup:
    """Return a figure as JSON that can stand in a script element: no name in it can end the script."""
    # The meta data is for this page's own text, and plotly does not need it.
    text = str(figure.update_layout(meta=None).to_json())
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _policy(*scripts: str) -> str:
    """Return the page's content security policy: these scripts and no network."""
    hashes = (base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in scripts)
    allowed = " ".join(f"'sha256-{text}'" for text in hashes)
    # Plotly writes styles of its own.
    rules = f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data:"
    return f"{rules}; base-uri 'none'; form-action 'none'"

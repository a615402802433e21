"""Heat maps, darker with more: kept units by block, classes by device, importance by class and block."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from planner.report.plan_frames import kept_frame, retention_frame
from planner.report.plots.style import (
    GREY,
    GROUND,
    MAX_DETAILED_ROWS,
    MAX_ROWS,
    SHADES,
    axis_label,
    hover_name,
    make_figure,
    mark_bottleneck,
    omission_note,
    rows_axis,
)
from planner.report.profile_frames import importance_frame
from planner.schema import Plan, Profile
from planner.units import count_noun, format_share, shorten

# With more columns, a cell has no room for its number on a phone.
_MAX_COLUMNS_WITH_TEXT = 12
# Of more classes, some go without a name.
_MAX_NAMES, _MAX_NAMED_COLUMNS = 60, 24
_PARTS = ("heads", "channels")
# Room below the cells [px]: the axis, its title, and the scale of shades.
_BELOW = 104


def kept_plot(plan: Plan, profile: Profile) -> go.Figure:
    """Return a map of the heads, and of the channels, that each device keeps in each block."""
    frame = kept_frame(plan, profile)
    devices = list(dict.fromkeys(frame["device"]))
    shown = devices[:MAX_ROWS]
    detailed = len(shown) <= MAX_DETAILED_ROWS
    dims = dict(zip(frame["device"], frame["embed_dim"], strict=True))
    labels = [_marked(d, plan) + (f"<br>embed dim {dims[d]}" if detailed else "") for d in shown]
    traces = [_kept_map(frame, part, shown, profile.depth, i) for i, part in enumerate(_PARTS, start=1)]
    blocks = {"tickmode": "linear", "dtick": max(1, profile.depth // 12), "showgrid": False, "ticks": ""}
    height = len(shown) * (44 if detailed else 22)
    between = 70 / (2 * height + 70)
    domains = [(1 + between) / 2, 1], [0, (1 - between) / 2]
    figure = make_figure(
        traces,
        _kept_title(frame),
        note=omission_note(len(shown), len(devices), "slowest"),
        plot_height=2 * height + 70 + _BELOW,
        above=24,
        margin_b=_BELOW,
        plot_bgcolor=GROUND,
        xaxis={**blocks, "anchor": "y", "showticklabels": True},
        xaxis2={**blocks, "anchor": "y2", "title": "block"},
        yaxis={**rows_axis(labels), "domain": domains[0]},
        yaxis2={**rows_axis(labels), "domain": domains[1]},
    )
    for part, (_, top) in zip(_PARTS, domains, strict=True):
        place = {"x": 0, "xref": "paper", "xanchor": "left", "y": top, "yref": "paper", "yanchor": "bottom"}
        figure.add_annotation(text=f"{part} kept in each block", showarrow=False, **place)
    return figure


def _kept_map(frame: pd.DataFrame, part: str, devices: Sequence[str], depth: int, number: int) -> Any:
    """Return the map of one part, drawn on the axes of this number."""
    cells = frame[(frame["part"] == part) & frame["device"].isin(devices)]
    shares, counts, of = (
        cells.pivot(index="device", columns="block", values=v).loc[devices] for v in ("share", "kept", "of")
    )
    hover = [
        [f"{hover_name(d)}, block {b}<br>{counts.loc[d, b]} of {of.loc[d, b]} {part}" for b in counts.columns]
        for d in devices
    ]
    texts = counts.astype(str).to_numpy().tolist() if depth <= _MAX_COLUMNS_WITH_TEXT else None
    return _map(shares, hover, texts, "share kept", bar=number == 1, yaxis=f"y{number}", xaxis=f"x{number}")


def classes_plot(plan: Plan, profile: Profile) -> go.Figure:
    """Return a map of classes and devices: the darker a cell, the more of the class is retained there [%]."""
    frame = retention_frame(plan, profile)
    shown = frame.iloc[:MAX_ROWS]
    if len(shown.columns) > _MAX_NAMED_COLUMNS:
        # Classes of one device side by side: where no name can be read, areas can be seen.
        first = shown.notna().to_numpy().argmax(axis=0)
        shown = shown.iloc[:, sorted(range(len(first)), key=lambda c: (first[c], c))]
    cells, hover = shown, _retention_hover(shown)
    down = [_marked(str(d), plan) for d in shown.index]
    across = [axis_label(str(c), 14) for c in shown.columns]
    # Many classes, but few enough to be named, go down the page: there is more room than across.
    if max(len(shown), _MAX_COLUMNS_WITH_TEXT) < len(shown.columns) <= _MAX_NAMES:
        cells, down, across = shown.T, across, down
        hover = [list(column) for column in zip(*hover, strict=True)]
    texts = _percents(cells) if len(cells.columns) <= _MAX_COLUMNS_WITH_TEXT else None
    every = -(-len(across) // _MAX_NAMED_COLUMNS)
    return make_figure(
        [_map(cells, hover, texts, "retention")],
        _classes_title(frame),
        note=omission_note(len(shown), len(frame), "slowest"),
        plot_height=_BELOW + len(down) * (30 if len(down) <= MAX_DETAILED_ROWS else 21),
        margin_b=_BELOW,
        plot_bgcolor=GROUND,
        xaxis={
            "tickmode": "array",
            "tickvals": list(range(0, len(across), every)),
            "ticktext": across[::every],
            "showgrid": False,
            "ticks": "",
            "title": "classes" if cells is shown else "devices",
        },
        yaxis=rows_axis(down),
    )


def _retention_hover(cells: pd.DataFrame) -> list[list[str]]:
    return [
        [f"class {hover_name(c)}<br>on {hover_name(d)}<br>{format_share(row[c])} retained" for c in cells.columns]
        for d, row in zip(map(str, cells.index), cells.to_dict("records"), strict=True)
    ]


def importance_plot(profile: Profile) -> go.Figure:
    """Return a map of the share of each class's importance in each block's heads, and channels [%]."""
    frame = importance_frame(profile)
    names = [str(name) for name in frame.index]
    every = -(-len(names) // _MAX_NAMES)
    top = float(frame.to_numpy().max())
    traces = []
    for i, part in enumerate(_PARTS):
        cells = pd.DataFrame({block: frame[block, part] for block in range(profile.depth)})
        hover = [
            [
                f"class {hover_name(c)}, block {b}<br>{format_share(cells.loc[c, b])} of its importance"
                for b in cells.columns
            ]
            for c in names
        ]
        texts = _percents(cells) if profile.depth <= _MAX_COLUMNS_WITH_TEXT // 2 else None
        traces.append(_map(cells, hover, texts, "importance", top=top, bar=i == 0, xaxis=f"x{i + 1}"))
    blocks = {"tickmode": "linear", "dtick": max(1, profile.depth // 6), "showgrid": False, "ticks": ""}
    rows = rows_axis([axis_label(name, 14) for name in names])
    rows |= {key: rows[key][::every] for key in ("tickvals", "ticktext")}
    return make_figure(
        traces,
        _importance_title(frame),
        plot_height=_BELOW + min(len(names) * 24, 900),
        margin_b=_BELOW,
        xaxis={**blocks, "domain": [0, 0.485], "title": "block's heads"},
        xaxis2={**blocks, "domain": [0.515, 1], "title": "block's channels"},
        yaxis=rows | {"title": "class"},
    )


def _map(
    cells: pd.DataFrame,
    hover: Sequence[Sequence[str]],
    texts: Sequence[Sequence[str]] | None,
    scale: str,
    *,
    top: float = 1.0,
    bar: bool = True,
    **axes: str,
) -> Any:
    """Return cells, rows from the top down, that are darker the nearer they are to `top`; `scale` names the colours."""
    return go.Heatmap(
        z=cells.to_numpy(dtype=float),
        zmin=0,
        zmax=top,
        x=list(range(len(cells.columns))),
        y=list(range(len(cells))),
        text=texts,
        texttemplate=None if texts is None else "%{text}",
        textfont={"size": 12},
        hovertext=hover,
        hoverinfo="text",
        hoverongaps=False,
        colorscale=SHADES,
        showscale=bar,
        colorbar={
            "orientation": "h",
            "title": {"text": scale, "side": "right", "font": {"size": 12}},
            "tickfont": {"size": 12},
            "x": 0,
            "xanchor": "left",
            "xref": "paper",
            "y": 0,
            "yanchor": "bottom",
            "yref": "container",
            "ypad": 6,
            "thickness": 10,
            "lenmode": "pixels",
            "len": 190,
            "tickformat": ".0%",
            "tickvals": [0, top / 2, top],
            "tickangle": 0,
            "outlinecolor": GREY,
            "outlinewidth": 0.5,
        },
        xgap=1,
        ygap=1,
        **axes,
    )


def _percents(cells: pd.DataFrame) -> list[list[str]]:
    return [["" if pd.isna(value) else f"{100 * value:.0f}" for value in row] for row in cells.to_numpy(dtype=float)]


def _marked(device: str, plan: Plan) -> str:
    return mark_bottleneck(axis_label(device)) if device == plan.bottleneck.device else axis_label(device)


def _kept_title(frame: pd.DataFrame) -> str:
    totals = frame.groupby("part")[["kept", "of"]].sum().to_dict("index")
    words = [f"{format_share(totals[p]['kept'] / totals[p]['of'])} of the {p}" for p in _PARTS if totals[p]["of"]]
    shares = " and ".join(words) or "no unit"
    if frame["device"].nunique() == 1:
        return f"{shorten(frame['device'].iloc[0], 30)} keeps {shares}"
    return f"{count_noun(frame['device'].nunique(), 'device')} keep {shares} on average"


def _classes_title(frame: pd.DataFrame) -> str:
    retentions = {(str(d), str(c)): kept for d, row in frame.iterrows() for c, kept in row.items() if not pd.isna(kept)}
    device, name = min(retentions, key=lambda cell: retentions[cell])
    lowest = f"class {shorten(name, 30)} keeps least, {format_share(retentions[device, name])} on {shorten(device, 30)}"
    num_repeated = int((frame.notna().sum() > 1).sum())
    where = (
        f"{count_noun(num_repeated, 'class')} on more than one device" if num_repeated else "Each class on one device"
    )
    if len(frame) == 1:
        where = f"{count_noun(len(frame.columns), 'class')} on one device"
    return f"{where}; {lowest}"


def _importance_title(frame: pd.DataFrame) -> str:
    means: dict[Any, float] = dict(frame.mean().items())
    (block, part), share = max(means.items(), key=lambda item: item[1])
    text = f"Block {block}'s {part} matter most, {format_share(share)} of a class's importance on average"
    cells: dict[Any, float] = {(c, at): share for c, row in frame.iterrows() for at, share in row.items()}
    name, (at, which) = max(cells, key=lambda cell: cells[cell] - means[cell[1]])
    shares = f"{format_share(cells[name, (at, which)])} beside {format_share(means[at, which])}"
    return text if len(frame) == 1 else f"{text}; class {shorten(name, 30)} leans on block {at}'s {which}: {shares}"

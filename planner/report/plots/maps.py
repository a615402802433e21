"""Maps, darker with more: what each block keeps, which classes are where, which blocks each class needs."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from planner.report.plan_frames import kept_frame, served_frame
from planner.report.plots.style import (
    FEW_ROWS,
    GREY,
    GROUND,
    MOST_ROWS,
    SHADES,
    drawn,
    full,
    label,
    rows_axis,
    shown_of,
    strong,
)
from planner.report.profile_frames import needs_frame
from planner.schema import Plan, Profile
from planner.units import counted, percent, short

# Up to this many columns each cell has room for its number on a phone.
_COLUMNS_WITH_TEXT = 12
# Beyond these, not every class is named.
_MOST_NAMES, _MOST_NAMED_COLUMNS = 60, 24
_PARTS = ("heads", "channels")
# Room below the cells [px]: the axis, its title, and the scale of shades.
_BELOW = 104


def kept_plot(plan: Plan, profile: Profile) -> go.Figure:
    """Return the share of heads, and of channels, that each device keeps in each block; how many in the cells."""
    frame = kept_frame(plan, profile)
    devices = list(dict.fromkeys(frame["device"]))
    shown = devices[:MOST_ROWS]
    few = len(shown) <= FEW_ROWS
    dims = dict(zip(frame["device"], frame["embed_dim"], strict=True))
    labels = [_marked(d, plan) + (f"<br>embed dim {dims[d]}" if few else "") for d in shown]
    traces = []
    for i, part in enumerate(_PARTS):
        cells = frame[(frame["part"] == part) & frame["device"].isin(shown)]
        shares, counts, of = (
            cells.pivot(index="device", columns="block", values=v).loc[shown] for v in ("share", "kept", "of")
        )
        hover = [
            [f"{full(d)}, block {b}<br>{counts.loc[d, b]} of {of.loc[d, b]} {part}" for b in counts.columns]
            for d in shown
        ]
        texts = counts.astype(str).to_numpy().tolist() if profile.depth <= _COLUMNS_WITH_TEXT else None
        traces.append(_map(shares, hover, texts, "share kept", bar=i == 0, yaxis=f"y{i + 1}", xaxis=f"x{i + 1}"))
    blocks = {"tickmode": "linear", "dtick": max(1, profile.depth // 12), "showgrid": False, "ticks": ""}
    height = len(shown) * (44 if few else 22)
    head, between = (f"{part} kept in each block" for part in _PARTS), 70 / (2 * height + 70)
    domains = [(1 + between) / 2, 1], [0, (1 - between) / 2]
    figure = drawn(
        traces,
        _kept_title(frame),
        note=shown_of(len(shown), len(devices), "slowest"),
        plot_height=2 * height + 70 + _BELOW,
        above=24,
        margin_b=_BELOW,
        plot_bgcolor=GROUND,
        xaxis={**blocks, "anchor": "y", "showticklabels": True},
        xaxis2={**blocks, "anchor": "y2", "title": "block"},
        yaxis={**rows_axis(labels), "domain": domains[0]},
        yaxis2={**rows_axis(labels), "domain": domains[1]},
    )
    for text, (_, top) in zip(head, domains, strict=True):
        figure.add_annotation(
            text=text, x=0, xref="paper", y=top, yref="paper", showarrow=False, xanchor="left", yanchor="bottom"
        )
    return figure


def classes_plot(plan: Plan, profile: Profile) -> go.Figure:
    """Return which classes are where: the darker a cell, the more of the class is retained there [%]."""
    frame = served_frame(plan, profile)
    shown = frame.iloc[:MOST_ROWS]
    if len(shown.columns) > _MOST_NAMED_COLUMNS:
        # Neighbours are on one device, so that blocks are to be seen where no name can be read.
        first = shown.notna().to_numpy().argmax(axis=0)
        shown = shown.iloc[:, sorted(range(len(first)), key=lambda c: (first[c], c))]
    devices, names = map(str, shown.index), map(str, shown.columns)
    hover = [
        [f"class {full(c)}<br>on {full(d)}<br>{percent(shown.loc[d, c])} retained" for c in shown.columns]
        for d in shown.index
    ]
    down, across = [_marked(d, plan) for d in devices], [label(c, 14) for c in names]
    cells = shown
    if len(names_of := list(shown.columns)) > max(len(shown), _COLUMNS_WITH_TEXT) and len(names_of) <= _MOST_NAMES:
        cells, down, across = shown.T, across, down
        hover = [list(column) for column in zip(*hover, strict=True)]
    texts = _percents(cells) if len(cells.columns) <= _COLUMNS_WITH_TEXT else None
    every = -(-len(across) // _MOST_NAMED_COLUMNS)
    return drawn(
        [_map(cells, hover, texts, "retention")],
        _classes_title(frame),
        note=shown_of(len(shown), len(frame), "slowest"),
        plot_height=_BELOW + len(down) * (30 if len(down) <= FEW_ROWS else 21),
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


def importance_plot(profile: Profile) -> go.Figure:
    """Return which blocks each class needs: the share of its importance in each block's heads, and channels [%]."""
    frame = needs_frame(profile)
    names = [str(name) for name in frame.index]
    every = -(-len(names) // _MOST_NAMES)
    top = float(frame.to_numpy().max())
    traces = []
    for i, part in enumerate(_PARTS):
        cells = pd.DataFrame({block: frame[block, part] for block in range(profile.depth)})
        hover = [
            [f"class {full(c)}, block {b}<br>{percent(cells.loc[c, b])} of its importance" for b in cells.columns]
            for c in names
        ]
        texts = _percents(cells) if profile.depth <= _COLUMNS_WITH_TEXT // 2 else None
        scale = "importance"
        traces.append(_map(cells, hover, texts, scale, top=top, bar=i == 0, xaxis=f"x{i + 1}"))
    blocks = {"tickmode": "linear", "dtick": max(1, profile.depth // 6), "showgrid": False, "ticks": ""}
    rows = rows_axis([label(name, 14) for name in names])
    rows |= {key: rows[key][::every] for key in ("tickvals", "ticktext")}
    return drawn(
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
    """Return cells (rows from the top down) that are the darker the nearer they are to `top`; `scale` says of what."""
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
    return strong(label(device)) if device == plan.bottleneck.device else label(device)


def _kept_title(frame: pd.DataFrame) -> str:
    totals = frame.groupby("part")[["kept", "of"]].sum().to_dict("index")
    words = [f"{percent(totals[p]['kept'] / totals[p]['of'])} of the {p}" for p in _PARTS if totals[p]["of"]]
    shares = " and ".join(words) or "no unit"
    if frame["device"].nunique() == 1:
        return f"{short(frame['device'].iloc[0], 30)} keeps {shares}"
    return f"{counted(frame['device'].nunique(), 'device')} keep {shares} on average"


def _classes_title(frame: pd.DataFrame) -> str:
    retentions = {(str(d), str(c)): kept for d, row in frame.iterrows() for c, kept in row.items() if not pd.isna(kept)}
    device, name = min(retentions, key=lambda at: retentions[at])
    least = f"class {short(name, 30)} keeps least, {percent(retentions[device, name])} on {short(device, 30)}"
    more = int((frame.notna().sum() > 1).sum())
    where = f"{counted(more, 'class')} on more than one device" if more else "Each class on one device"
    if len(frame) == 1:
        where = f"{counted(len(frame.columns), 'class')} on one device"
    return f"{where}; {least}"


def _importance_title(frame: pd.DataFrame) -> str:
    means: dict[Any, float] = dict(frame.mean().items())
    (block, part), most = max(means.items(), key=lambda item: item[1])
    text = f"Block {block}'s {part} matter most, {percent(most)} of a class's importance on average"
    cells: dict[Any, float] = {(c, at): share for c, row in frame.iterrows() for at, share in row.items()}
    name, (at, which) = max(cells, key=lambda cell: cells[cell] - means[cell[1]])
    shares = f"{percent(cells[name, (at, which)])} beside {percent(means[at, which])}"
    return text if len(frame) == 1 else f"{text}; class {short(name, 30)} leans on block {at}'s {which}: {shares}"

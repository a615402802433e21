"""A plan as HTML for a notebook: a table without scripts, all text escaped."""

from functools import lru_cache

import pandas as pd
from jinja2 import Environment, Template

from planner.report.frames import devices_frame
from planner.report.text import accuracy_line, budget_texts, floors_line, headline, join_classes
from planner.schema import Fleet, Plan, Profile
from planner.units import format_time_us, visible

_TEMPLATE = """\
<div>
<p><strong>{{ headline }}</strong>{% for line in lines %}<br>{{ line }}{% endfor %}</p>
<table>
<caption style="text-align: left">{{ caption }}</caption>
<thead><tr>
{%- for name in columns %}<th scope="col" style="text-align: left">{{ name }}</th>{% endfor -%}
</tr></thead>
<tbody>
{%- for row in rows %}
<tr><th scope="row" style="text-align: left">{{ row[0] }}</th>
{%- for cell in row[1:] %}<td style="text-align: left">{{ cell }}</td>{% endfor -%}
</tr>
{%- endfor %}
</tbody>
</table>
</div>
"""
_COLUMNS = ("device", "kind", "classes", "heads", "channels")


def plan_html(plan: Plan, profile: Profile, fleet: Fleet) -> str:
    """Return headline, certificate and a row for each device, the idle ones last."""
    frame = devices_frame(plan, profile, fleet)
    num_heads, num_channels = profile.num_heads * profile.depth, sum(sum(sizes) for sizes in profile.group_sizes)
    storage = ("storage / budget",) if fleet.has_storage else ()
    columns = (*_COLUMNS, "memory / budget", *storage, "latency")
    rows = []
    for name, row in frame.iterrows():
        # pandas may hold a missing kind as NaN.
        kind = "" if pd.isna(row["kind"]) else visible(row["kind"])
        budgets = [" / ".join(pair) for pair in budget_texts(row)]
        budgets += [""] * (len(columns) - len(_COLUMNS) - len(budgets) - 1)
        if not row["classes"]:
            rows.append((visible(str(name)), kind, "idle", "", "", *budgets, ""))
            continue
        units = (f"{row['heads']:.0f}/{num_heads}", f"{row['channels']:.0f}/{num_channels}")
        latency = f"{format_time_us(row['latency_us'])}{', the bottleneck' if row['bottleneck'] else ''}"
        rows.append((visible(str(name)), kind, join_classes(row["classes"]), *units, *budgets, latency))
    lines = [_certificate_line(plan)]
    if plan.predicted_accuracy is not None:
        lines.append(accuracy_line(plan.predicted_accuracy, profile))
    if plan.retention_floor is not None:
        lines.append(floors_line(plan))
    return _template().render(
        headline=headline(plan),
        lines=lines,
        caption=f"{visible(fleet.name)}: who runs what",
        columns=columns,
        rows=rows,
    )


def _certificate_line(plan: Plan) -> str:
    """Return the solver and the hashes of what it planned with, in one line."""
    return (
        f"{visible(plan.solver.version)}, seed {plan.solver.seed}; profile {plan.profile_sha256[:12]}, "
        f"fleet {plan.fleet_sha256[:12]}"
    )


# Made at first use: most programs show no plan in a notebook.
@lru_cache
def _template() -> Template:
    return Environment(autoescape=True).from_string(_TEMPLATE)

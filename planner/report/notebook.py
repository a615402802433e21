"""A plan as a piece of HTML, what a notebook shows for it: no scripts, all text escaped."""

from functools import lru_cache

from jinja2 import Environment, Template

from planner.report.frames import devices_frame
from planner.report.text import accuracy_line, class_names, headline, kib, ms
from planner.schema import Fleet, Plan, Profile

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
_COLUMNS = ("device", "kind", "classes", "heads", "channels", "memory / budget", "latency")


def plan_html(plan: Plan, profile: Profile, fleet: Fleet) -> str:
    """Return headline, certificate and a row for each device, the idle ones last."""
    frame = devices_frame(plan, profile, fleet)
    num_heads, num_channels = profile.num_heads * profile.depth, sum(sum(sizes) for sizes in profile.group_sizes)
    rows = []
    for name, row in frame.iterrows():
        memory = f"{kib(row.get('memory_bytes', float('nan')))} / {kib(row['budget_bytes'])}"
        if not row["classes"]:
            rows.append((name, row["kind"] or "", "idle", "", "", memory, ""))
            continue
        slowest = ", the bottleneck" if row["bottleneck"] else ""
        units = (f"{row['heads']:.0f}/{num_heads}", f"{row['channels']:.0f}/{num_channels}")
        latency = f"{ms(row['latency_us'])}{slowest}"
        rows.append((name, row["kind"] or "", class_names(row["classes"]), *units, memory, latency))
    lines = [certificate(plan)]
    if plan.predicted_accuracy is not None:
        lines.append(accuracy_line(plan.predicted_accuracy, profile))
    return _template().render(
        headline=headline(plan),
        lines=lines,
        caption=f"{fleet.name}: who runs what",
        columns=_COLUMNS,
        rows=rows,
    )


def certificate(plan: Plan) -> str:
    """Return what made the plan, and of what, in one line."""
    return (
        f"{plan.solver.version}, seed {plan.solver.seed}; profile {plan.profile_sha256[:12]}, "
        f"fleet {plan.fleet_sha256[:12]}"
    )


@lru_cache
def _template() -> Template:
    return Environment(autoescape=True).from_string(_TEMPLATE)

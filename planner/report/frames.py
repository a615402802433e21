"""Plans and evaluations as pandas tables: the numbers that all reports show."""

import pandas as pd

from planner.rules import cost
from planner.schema import Evaluation, Fleet, Plan, Profile


def devices_frame(plan: Plan, profile: Profile, fleet: Fleet) -> pd.DataFrame:
    """Return a row for each device of the fleet, the idle ones last.

    Columns: kind, classes, heads, channels, params, macs, precision, memory_bytes, budget_bytes, storage_bytes,
    storage_budget_bytes (both missing where the device has no budget for it), send_us, compute_us, return_us,
    latency_us, least_retention, energy_mj, estimated, bottleneck.
    """
    members = {member.name: member for member in fleet.members}
    rows = []
    for a in plan.assignments:
        heads, channels = cost.kept_counts(profile, a.kept_heads, a.kept_channel_groups)
        width = profile.width(a.embed_dim)
        # A valid plan has only widths of its profile.
        assert width is not None
        rows.append(
            {
                "device": a.device,
                "kind": members[a.device].kind,
                "classes": a.classes,
                "heads": sum(heads),
                "channels": sum(channels),
                "params": cost.params(width, heads, channels),
                "macs": cost.macs(width, heads, channels),
                "precision": a.precision,
                "memory_bytes": a.memory_bytes,
                "budget_bytes": members[a.device].memory_budget,
                "storage_bytes": a.storage_bytes,
                "storage_budget_bytes": members[a.device].storage_budget,
                "send_us": a.send_us,
                "compute_us": a.compute_us,
                "return_us": a.return_us,
                "latency_us": a.latency_us,
                "least_retention": min(a.retention.values()),
                "energy_mj": a.energy_mj,
                "estimated": a.estimated,
                "bottleneck": a.device == plan.bottleneck.device,
            }
        )
    for name in plan.idle:
        member = members[name]
        budgets = {"budget_bytes": member.memory_budget, "storage_budget_bytes": member.storage_budget}
        rows.append({"device": name, "kind": member.kind, "classes": (), **budgets})
    frame: pd.DataFrame = pd.DataFrame(rows).set_index("device")
    return frame


def classes_frame(evaluation: Evaluation) -> pd.DataFrame:
    """Return accuracies on the test part: a row for each class and one for all of them."""
    frame = pd.DataFrame({"whole": evaluation.whole_by_class, "fused": evaluation.fused_by_class})
    # Appended, not set by name: a class may be called "all".
    everything = {"whole": evaluation.whole_accuracy, "fused": evaluation.fused_accuracy}
    frame = pd.concat([frame, pd.DataFrame(everything, index=["all"])])
    frame["change"] = frame["fused"] - frame["whole"]
    table: pd.DataFrame = frame.rename_axis("class")
    return table


def sizes_frame(evaluation: Evaluation) -> pd.DataFrame:
    """Return sizes against the whole model: a row for each device, and the fleet's as the sum over its devices."""
    sizes = pd.DataFrame({name: size.model_dump() for name, size in evaluation.devices.items()}).T
    sizes = pd.concat([sizes, pd.DataFrame(sizes.sum().to_dict(), index=["fleet"])])
    sizes["params_ratio"] = evaluation.whole.params / sizes["params"]
    sizes["macs_ratio"] = evaluation.whole.macs / sizes["macs"]
    table: pd.DataFrame = sizes.rename_axis("device")
    return table

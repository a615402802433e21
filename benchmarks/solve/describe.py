"""Description of the generated instances: correlations between classes, and what limits each kind of device.

python -m benchmarks.solve.describe
"""

import numpy as np

from benchmarks.solve.instances import SIZES, DeviceKind, Size, SyntheticModel, device_kinds, instance
from planner.arrays import Floats
from planner.schema import Profile


def main() -> None:
    """Print the description of every size."""
    for sizes in SIZES.values():
        for size in (size for size in sizes if size.is_there):
            print(describe(size), flush=True)


def describe(size: Size) -> str:
    """Return the description of a size: correlations, and how many classes memory and time allow on each kind."""
    of_all, of_heads, of_groups = mean_correlations(instance(size)[0])
    lines = [f"{size.name}: correlation between classes {of_all:.2f} (heads {of_heads:.2f}, groups {of_groups:.2f})"]
    if size.profile:
        return lines[0]
    model = SyntheticModel(size)
    kinds = device_kinds(model)
    unit_macs = model.unit_bytes / 4 / model.channel_params * model.channel_macs

    def classes_in_time(kind: DeviceKind, seconds: float) -> int:
        # Approximately: heads and channels take nearly the same time per byte.
        macs = seconds * kind.macs_per_second - model.fixed_macs
        return model.classes_within(max(0.0, macs) * model.unit_bytes.sum() / unit_macs.sum())

    in_memory = [model.classes_within(kind.free_bytes) for kind in kinds]
    seconds = 0.05
    limits = list(zip(kinds, in_memory, strict=True))
    while sum(k.count * min(n, classes_in_time(k, seconds)) for k, n in limits) < size.num_classes:
        seconds *= 1.02
    lines.append(f"  all classes are served in about {1000 * seconds:.0f} ms; what a device of each kind can serve:")
    for kind, num_classes in limits:
        share = (kind.free_bytes + model.fixed_bytes) / model.whole_bytes
        lines.append(
            f"  {kind.count:4} x {kind.macs_per_second / 1e9:4.1f} GMAC/s, {share:4.0%} of the model: "
            f"{num_classes:4} classes in memory, {classes_in_time(kind, seconds):4} in time; "
            f"{kind.bandwidth_mbps:.0f} Mbit/s, {kind.latency_ms} ms"
        )
    return "\n".join(lines)


def mean_correlations(profile: Profile) -> tuple[float, float, float]:
    """Return the mean correlation between two classes: of all units' importance, of heads, of channel groups."""

    def flat(halves: tuple[tuple[tuple[float, ...], ...], ...]) -> Floats:
        return np.array([[share for block in blocks for share in block] for blocks in halves])

    def mean(shares: Floats) -> float:
        correlations = np.atleast_2d(np.corrcoef(shares))
        return float(correlations[np.triu_indices(len(shares), 1)].mean())

    heads, groups = flat(profile.importance.heads), flat(profile.importance.channel_groups)
    return mean(np.concatenate([heads, groups], axis=1)), mean(heads), mean(groups)


if __name__ == "__main__":
    main()

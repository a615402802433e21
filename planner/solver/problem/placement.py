"""Placements: sub-models on options, their validity, and their assignment to devices by name."""

from collections import Counter
from collections.abc import Mapping, Sequence

from ortools.graph.python import linear_sum_assignment

from planner.schema import Assignment, Plan
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import PlacedSubModel

# Sub-model of each used device, by name.
ByDevice = Mapping[str, PlacedSubModel]


def placement_of_plan(instance: Instance, plan: Plan) -> dict[str, PlacedSubModel]:
    """Return the sub-models of an earlier plan by device, as far as this fleet and profile still have them."""
    groups = {name: g for g, group in enumerate(instance.groups) for name in group.names}
    found = {}
    for a in plan.assignments:
        p = _placed(instance, a, groups.get(a.device))
        if p is not None:
            found[a.device] = p
    return found


def _placed(instance: Instance, a: Assignment, group: int | None) -> PlacedSubModel | None:
    known = instance.profile.classes
    classes = tuple(sorted(known.index(name) for name in a.classes if name in known))
    for option in instance.options:
        same = option.embed_dim == a.embed_dim and a.precision in (None, option.width_cost.precision)
        if option.group == group and same and classes:
            heads = {(True, l, i) for l, block in enumerate(a.kept_heads) for i in block}
            channels = {(False, l, i) for l, block in enumerate(a.kept_channel_groups) for i in block}
            return PlacedSubModel(option, classes, instance.units.positions(heads | channels))
    return None


def moved(instance: Instance, placed: Sequence[PlacedSubModel]) -> list[PlacedSubModel]:
    """Return the placement of another instance, which differs in its floors only, as one of this instance."""
    options = {(o.group, o.embed_dim, o.width_cost.precision): o for o in instance.options}
    return [
        PlacedSubModel(options[p.option.group, p.option.embed_dim, p.option.width_cost.precision], p.classes, p.kept)
        for p in placed
    ]


def is_valid(instance: Instance, p: PlacedSubModel) -> bool:
    """Return whether a sub-model is allowed on its device, keeps the anchor head, fits, and meets its floors."""
    return instance.allows(p.option.group, p.classes) and instance.can_serve(p.option, p.classes, p.kept)


def is_plan(instance: Instance, placed: Sequence[PlacedSubModel]) -> bool:
    """Return whether these sub-models together meet every demand but the limits of latency and energy."""
    counts = Counter(p.option.group for p in placed)
    pinned = all(counts[g] == len(group.names) for g, group in enumerate(instance.groups) if group.pinned)
    served = all(
        sum(c in p.classes for p in placed if p.option.group in rule.groups) >= rule.min_devices
        for rule in instance.survival_rules
        for c in range(instance.num_classes)
    )
    return pinned and served and all(is_valid(instance, p) for p in placed)


def by_device(instance: Instance, placed: Sequence[PlacedSubModel], earlier: ByDevice) -> dict[str, PlacedSubModel]:
    """Return the sub-model of each device by name, with the least moves from an earlier placement.

    Within a group it is a linear sum assignment.
    """
    chosen: dict[str, PlacedSubModel] = {}
    for g, group in enumerate(instance.groups):
        here = sorted((p for p in placed if p.option.group == g), key=lambda p: p.classes)
        if not any(name in earlier for name in group.names):
            chosen.update(zip(group.names, here, strict=False))
            continue
        match = linear_sum_assignment.SimpleLinearSumAssignment()
        for i in range(len(group.names)):
            for j, name in enumerate(group.names):
                arc = move_cost(here[i].classes, here[i].kept, earlier.get(name)) if i < len(here) else 0
                match.add_arc_with_cost(i, j, arc)
        match.solve()
        chosen.update({group.names[match.right_mate(i)]: p for i, p in enumerate(here)})
    return chosen


def move_cost(classes: tuple[int, ...], kept: tuple[int, ...] | None, before: PlacedSubModel | None) -> int:
    """Return twice the classes new to a device, plus one if its sub-model changes at all."""
    old = set() if before is None else set(before.classes)
    same = before is not None and before.classes == classes and kept in (None, before.kept)
    return 2 * len(set(classes) - old) + (not same)

"""The example worked out in docs/mathematics.md: every number of it, by enumeration."""

import itertools
import math

import pytest
from scipy.optimize import linprog

from planner.library import load_fleet, load_profile, read_plan
from planner.rules.check import check
from planner.schema import Fleet, Goal, Plan, read_document
from planner.solver import solve
from tests.helpers.common import ROOT

FILES = ROOT / "examples" / "by-hand"
PAGE = (ROOT / "docs" / "mathematics.md").read_text().partition("## An example by hand")[2].partition("\n## ")[0]

# Units: head 0, head 1, group 0, group 1.
MACS, PARAMS = (400, 400, 200, 200), (40, 40, 20, 20)
IMPORTANCE = {"cat": (0.35, 0.05, 0.5, 0.1), "dog": (0.3, 0.45, 0.1, 0.15)}
FLOOR = 0.6
GOAL = Goal(min_retention=FLOOR)
SUBSETS = (("cat",), ("dog",), ("cat", "dog"))
US_PER_MAC = {"gateway": 1.0, "board": 0.5}
BUDGET = {"gateway": 3000, "board": 2550}
PATH_US = {"gateway": 0, "board": 164 + 132}
# Head 0: 0.65 of both classes together, where head 1 is 0.5.
ANCHOR = 0
NAMES = ("head 0", "head 1", "group 0", "group 1")


def kept_of(classes: tuple[str, ...]) -> tuple[int, ...]:
    """Return the units of fewest MACs that hold the anchor head and meet the floors of some classes."""
    ways = [kept for size in range(5) for kept in itertools.combinations(range(4), size) if ANCHOR in kept]
    enough = [kept for kept in ways if all(sum(IMPORTANCE[c][u] for u in kept) >= FLOOR - 1e-9 for c in classes)]
    return min(enough, key=lambda kept: sum(MACS[u] for u in kept))


def macs_of(classes: tuple[str, ...]) -> int:
    """Return the MACs of their cheapest sub-model."""
    return 1000 + sum(MACS[u] for u in kept_of(classes))


def bytes_of(classes: tuple[str, ...]) -> int:
    """Return the memory of their cheapest sub-model, the runtime's included."""
    kept = kept_of(classes)
    heads, channels = sum(u < 2 for u in kept), 2 * sum(u >= 2 for u in kept)
    return 4 * (100 + sum(PARAMS[u] for u in kept)) + 400 + max(200 * heads, 50 * channels) + 1000


def time_us(device: str, classes: tuple[str, ...]) -> int | None:
    """Return the latency of a device that serves some classes; None if they do not fit."""
    if bytes_of(classes) > BUDGET[device]:
        return None
    return math.ceil(PATH_US[device] + US_PER_MAC[device] * macs_of(classes))


def fusion_us(num_devices: int) -> int:
    """Return the time of the fusion."""
    return 4 * (8 * num_devices + 2)


def relaxed_macs(classes: tuple[str, ...]) -> float:
    """Return the MACs of a sub-model whose units may be kept in part."""
    floors = [-FLOOR for _ in classes]
    shares = [[-share for share in IMPORTANCE[c]] for c in classes]
    bounds = [(u == ANCHOR, 1) for u in range(4)]
    return 1000 + float(linprog(MACS, A_ub=shares, b_ub=floors, bounds=bounds).fun)


@pytest.mark.parametrize("classes", SUBSETS, ids=" ".join)
def test_cheapest_sub_models(classes: tuple[str, ...]) -> None:
    """Each class subset's row: the kept units, their retention and cost."""
    kept = kept_of(classes)
    retention = ", ".join(f"{c} {sum(IMPORTANCE[c][u] for u in kept):.2f}" for c in classes)
    times = [time_us(device, classes) for device in ("gateway", "board")]
    shown = ["too large" if us is None else f"{us:,}" for us in times]
    row = [", ".join(classes), ", ".join(NAMES[u] for u in kept), retention, f"{macs_of(classes):,}"]
    assert f"| {' | '.join([*row, f'{bytes_of(classes):,}', *shown])} |\n" in PAGE


def test_the_best_assignment() -> None:
    """The page's assignment is the fastest of all, and the planner finds it."""
    choices = [(), *SUBSETS]
    latencies = {}
    for at_gateway, at_board in itertools.product(choices, choices):
        used = {d: s for d, s in (("gateway", at_gateway), ("board", at_board)) if s}
        times = [time_us(device, classes) for device, classes in used.items()]
        if {*at_gateway, *at_board} == {"cat", "dog"} and None not in times:
            latencies[at_gateway, at_board] = max(us or 0 for us in times) + fusion_us(len(used))
    best = min(latencies, key=lambda pair: latencies[pair])
    assert best == (("cat",), ("dog",))
    plan = by_hand()
    assert {a.device: a.classes for a in plan.assignments} == {"gateway": best[0], "board": best[1]}
    assert (plan.latency_us, plan.bound_us, plan.status) == (latencies[best], latencies[best], "optimal")
    for pair in ((("cat", "dog"), ()), (("dog",), ("cat",))):
        assert f"{latencies[pair]:,} |\n" in PAGE
    assert f"**{latencies[best]:,}**" in PAGE


def test_the_bound() -> None:
    """The bounds stated on the page: with divisible units, then with one sub-model built, and the optimum."""
    cat, dog = relaxed_macs(("cat",)), relaxed_macs(("dog",))
    assert (cat, dog) == pytest.approx((1500, 1666 + 2 / 3))
    first = max(cat, PATH_US["board"] + 0.5 * dog) + fusion_us(2)
    other_way = max(dog, PATH_US["board"] + 0.5 * cat) + fusion_us(2)
    together = relaxed_macs(("cat", "dog")) + fusion_us(1)
    assert first == pytest.approx(1572)
    assert "= 1,572 us" in PAGE
    assert first < macs_of(("cat",)) + fusion_us(2) == 1672 < min(other_way, together)


def test_a_roomier_board() -> None:
    """With 250 bytes more the board serves both classes."""
    fleet = load_fleet(FILES / "devices.json")
    data = fleet.model_dump()
    data["devices"][1]["memory_budget"] += 250
    plan = solve(load_profile(str(FILES / "profile.json")), Fleet.model_validate(data), GOAL)
    assert (plan.latency_us, plan.idle) == (1336, ("gateway",))
    assert "1,296 + 40 = 1,336 us" in PAGE


def by_hand(goal: Goal = GOAL) -> Plan:
    """Return the planner's plan."""
    return solve(load_profile(str(FILES / "profile.json")), load_fleet(FILES / "devices.json"), goal)


def loss_of(*kept: tuple[int, ...]) -> float:
    """Return the predicted loss of devices that keep these units: k = s = q = 1, e^a = 0.1, m = 1."""
    losses = []
    for shares in IMPORTANCE.values():
        retained = [sum(shares[u] for u in units) for units in kept]
        z = 0.1 / sum(r / (1 - r) for r in retained)
        losses.append(z / (1 + z))
    return sum(losses) / len(losses)


def test_the_prediction() -> None:
    """The plan is predicted to lose 2.1 points, as on the page."""
    plan = by_hand()
    assert plan.predicted_accuracy is not None
    loss = loss_of(kept_of(("cat",)), kept_of(("dog",)))
    assert plan.predicted_accuracy.loss == pytest.approx(loss, abs=2e-6)
    assert f"their mean {100 * loss:.1f} points" in PAGE


def test_a_drop_in_place_of_a_floor() -> None:
    """Within 3 points the plan is the same; within 11 the board alone serves both classes with head 0 and group 1."""
    same = by_hand(Goal(max_accuracy_drop=0.03))
    assert [(a.device, a.classes, a.kept_heads, a.kept_channel_groups) for a in same.assignments] == [
        (a.device, a.classes, a.kept_heads, a.kept_channel_groups) for a in by_hand().assignments
    ]
    alone = by_hand(Goal(max_accuracy_drop=0.11))
    (board,) = alone.assignments
    assert (board.device, board.classes) == ("board", ("cat", "dog"))
    assert (board.kept_heads, board.kept_channel_groups) == (((0,),), ((1,),))
    assert alone.latency_us == math.ceil(PATH_US["board"] + 0.5 * 1600) + fusion_us(1) == 1136
    assert "1,096 + 40 = 1,136 us" in PAGE
    loss = loss_of((0, 3))
    assert loss < 0.11
    assert f"the loss {100 * loss:.1f} points" in PAGE


def test_the_stored_plan() -> None:
    """The stored plan is valid, and the planner finds it."""
    stored = read_plan(FILES / "plan.json")
    profile, fleet = load_profile(str(FILES / "profile.json")), load_fleet(FILES / "devices.json")
    assert check(stored, profile, fleet) == []
    again = by_hand().model_dump(exclude={"solver"})
    assert read_document(FILES / "plan.json", Plan).model_dump(exclude={"solver"}) == again

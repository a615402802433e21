"""Costs against arithmetic on paper; every expected number is derived in a docstring or comment.

The sub-model of most tests keeps 2 heads and 1 channel in block 0, and no head and all 3
channels in block 1.
"""

from fractions import Fraction
from typing import Any

import pytest

from planner.errors import InputError
from planner.rules import cost
from planner.rules.compute_time import TimeModel
from planner.rules.cost import DeviceCost
from planner.rules.links import rational
from planner.schema import DeviceKind, Fleet, Profile
from tests.helpers.pencil import MIB, fleet, fleet_data, profile, profile_data

HEADS, CHANNELS = [2, 0], [1, 3]


def device(name: str, in_fleet: Fleet | None = None, of_profile: Profile | None = None) -> DeviceCost:
    """Return the costs of one device."""
    return next(d for d in cost.device_costs(of_profile or profile(), in_fleet or fleet()) if d.name == name)


def lone(**changes: Any) -> Fleet:
    """Return a fleet of one device with some keys replaced."""
    return fleet(devices=[fleet_data()["devices"][0] | changes], links=[])


def linked(*links: tuple[str, str, float, float], default: tuple[float, float] | None = None) -> Fleet:
    """Return gateway, near and far with these links: ends, bandwidth [Mbit/s], latency [ms]."""
    hops = [{"between": [a, b], "bandwidth_mbps": mbps, "latency_ms": ms} for a, b, mbps, ms in links]
    speed = {"bandwidth_mbps": default[0], "latency_ms": default[1]} if default else None
    return fleet(links=hops, default_link=speed)


def travel(name: str, in_fleet: Fleet, of_profile: Profile | None = None) -> tuple[int, int]:
    """Return the send and return time [us] of a device at embed dim 8."""
    return travel_of(device(name, in_fleet, of_profile), in_fleet)


def travel_of(costs: DeviceCost, in_fleet: Fleet, embed_dim: int = 8) -> tuple[int, int]:
    """Return the send and return time [us] of a device that is the only one in use."""
    at = costs.at(embed_dim)
    assert at is not None
    return cost.transfers_us(in_fleet, [at])[0]


def memory_of(costs: DeviceCost, heads: list[int] = HEADS, channels: list[int] = CHANNELS) -> int:
    """Return the memory [bytes] of the sub-model at embed dim 8."""
    at = costs.at(8)
    assert at is not None
    return costs.memory_bytes(at, heads, channels)


def compute(costs: DeviceCost, embed_dim: int = 8) -> tuple[int, bool]:
    """Return the compute time [us] of the sub-model, and whether it is estimated."""
    at = costs.at(embed_dim)
    assert at is not None
    return at.time.compute_us(HEADS, CHANNELS), at.time.estimated


def card(**changes: Any) -> dict[str, DeviceKind]:
    """Return the one card of a shipped kind "stove"."""
    data = {
        "kind": "stove",
        "description": "a stove",
        "macs_per_second": 6e6,
        "runtime_overhead": "1MiB",
        "active_power_w": 4.0,
        "memory": "1GiB",
        "provenance": "declared",
        "sources": {},
    }
    return {"stove": DeviceKind.model_validate(data | changes)}


def test_params_are_fixed_ones_and_those_of_each_kept_head_and_channel() -> None:
    """50 fixed + 2 heads of 7 + 1 channel of 3 + 3 channels of 5 = 82."""
    assert cost.params(profile().widths[0], HEADS, CHANNELS) == 82


def test_macs_are_fixed_ones_and_those_of_each_kept_head_and_channel() -> None:
    """1000 fixed + 2 heads of 100 + 1 channel of 10 + 3 channels of 20 = 1270."""
    assert cost.macs(profile().widths[0], HEADS, CHANNELS) == 1270


@pytest.mark.parametrize(("precision", "bytes_per_param"), [("float32", 4), ("float16", 2), ("int8", 1)])
def test_memory_is_weights_at_the_precision_activations_and_overhead(precision: str, bytes_per_param: int) -> None:
    """82 params at 4, 2 or 1 bytes + 37 activation bytes + 1000 overhead."""
    assert memory_of(device("gateway", lone(precision=precision))) == 82 * bytes_per_param + 37 + 1000


def test_a_choice_of_precisions_is_a_width_cost_each() -> None:
    """Two widths at two precisions are four; 82 params take 4 bytes or 1, beside 37 + 1000; None is no choice."""
    both = device("gateway", lone(precision=["int8", "float32"]), profile(precision_retention={"int8": [0.5, 0.25]}))
    found = {(w.width.embed_dim, w.precision): w for w in both.widths}
    assert set(found) == {(8, "int8"), (8, "float32"), (4, "int8"), (4, "float32")}
    memories = {p: both.memory_bytes(found[8, p], HEADS, CHANNELS) for p in ("int8", "float32")}
    assert memories == {"int8": 82 + 1037, "float32": 4 * 82 + 1037}
    assert both.at(8) is None
    assert both.at(8, "int8") is found[8, "int8"]
    # Width 4 leaves 0.9 of a and 0.5 of b; int8 half of the one and a quarter of the other.
    assert found[4, "int8"].max_retention == pytest.approx((0.45, 0.125))
    assert found[4, "float32"].max_retention == (0.9, 0.5)


def test_a_precision_is_a_choice_only_where_its_cost_is_known() -> None:
    """Without a known cost int8 is no choice; as a device's only precision it is taken."""
    message = r"device 'gateway': precision can be a choice only where .* got no 'int8' in profile 'pencil'; give"
    with pytest.raises(InputError, match=message):
        device("gateway", lone(precision=["float32", "int8"]))
    assert {w.precision for w in device("gateway", lone(precision="int8")).widths} == {"int8"}


def test_memory_is_rounded_up() -> None:
    """75 params x 4 + 32.75 activation bytes = 332.75, which takes 333 bytes beside the overhead of 1000."""
    assert memory_of(device("gateway"), [1, 0]) == 1333


def test_overhead_is_80_mib_where_nobody_states_one() -> None:
    """Without a stated overhead of the device or its kind: 82 x 4 + 37 + 80 MiB."""
    assert memory_of(device("gateway", lone(runtime_overhead=None))) == 365 + 80 * MIB


def test_compute_time_comes_from_the_kinds_table() -> None:
    """10.5 + block 0 (2 + 2 x 1.25 + 3 + 1 x 0.5 = 8) + block 1 (no heads; 3 + 3 x 0.5 = 4.5) = 23 us, measured."""
    assert compute(device("near")) == (23, False)


def test_compute_time_is_rounded_up() -> None:
    """One head fewer saves 1.25 of the 23 us: 21.75 us are 22."""
    at = device("near").at(8)
    assert at is not None
    assert at.time.compute_us([1, 0], CHANNELS) == 22


def test_a_block_without_units_costs_no_switches() -> None:
    """With nothing kept, only the 10.5 fixed us remain."""
    at = device("near").at(8)
    assert at is not None
    assert at.time.compute_us([0, 0], [0, 0]) == 11


def test_decimals_are_taken_as_written() -> None:
    """100 channels of 0.07 us take 7 us, though 100 x 0.07 is above 7 in binary."""
    zero = Fraction(0)
    time = TimeModel(zero, zero, (zero,), zero, (rational(0.07),), estimated=False)
    assert 100 * 0.07 > 7
    assert time.compute_us([0], [100]) == 7


def test_compute_time_is_estimated_from_the_mac_rate() -> None:
    """1270 MACs at 3 MAC/us take 423.33 us, rounded up, and the plan will say that it is an estimate."""
    assert compute(device("gateway")) == (424, True)


def test_own_mac_rate_wins_over_the_kinds_table() -> None:
    """A board's own 3e6 MAC/s win: 424 us instead of the table's 23."""
    assert compute(device("gateway", lone(kind="board"))) == (424, True)


def test_a_width_that_the_table_lacks_is_not_offered() -> None:
    """The table of "board" has no row for width 4, and "board" has no MAC rate."""
    assert device("near").at(4) is None
    assert [w.width.embed_dim for w in device("near").widths] == [8]
    assert [w.width.embed_dim for w in device("gateway").widths] == [8, 4]


def test_the_kinds_card_fills_in_rate_overhead_and_power(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kind without a table is timed by its card: 1270 MACs at 6 MAC/us = 211.67 us; 1 MiB overhead, 4 W."""
    monkeypatch.setattr(cost, "load_kinds", card)
    costs = device("gateway", lone(kind="stove", macs_per_second=None, runtime_overhead=None))
    assert compute(costs) == (212, True)
    assert memory_of(costs) == 365 + MIB
    assert costs.energy_mj(212) == pytest.approx(0.848)  # 4 W x 212 us


def test_own_numbers_win_over_the_kinds_card(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stove with its own rate, overhead and power ignores the card's."""
    monkeypatch.setattr(cost, "load_kinds", card)
    costs = device("gateway", lone(kind="stove", active_power_w=2))
    assert compute(costs) == (424, True)
    assert (costs.runtime_overhead_bytes, costs.energy_mj(500)) == (1000, 1.0)


def test_the_card_times_the_widths_that_the_table_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    """At width 8 the table says 23 us; at width 4 the card's rate says 500 + 100 + 5 + 30 MACs / 6 = 105.83 us."""
    monkeypatch.setattr(cost, "load_kinds", card)
    measured = profile(latency={"stove": profile_data()["latency"]["board"]})
    costs = device("gateway", lone(kind="stove", macs_per_second=None), measured)
    assert compute(costs) == (23, False)
    assert compute(costs, 4) == (106, True)


def test_the_aggregator_sends_nothing() -> None:
    """The aggregator has the image and joins the features itself, so its travel times are zero."""
    assert travel("gateway", fleet()) == (0, 0)


def test_one_hop() -> None:
    """1 ms + 800 bit / 8 Mbit/s = 1100 us to send; 1 ms + 8 dims x 4 bytes = 256 bit / 8 = 1032 us to return."""
    assert travel("near", fleet()) == (1100, 1032)


def test_several_hops_have_the_least_bandwidth_and_the_sum_of_latencies() -> None:
    """1 + 2 ms and the 4 Mbit/s of the second hop: 3000 + 800 / 4 and 3000 + 256 / 4."""
    assert travel("far", fleet()) == (3200, 3064)


def test_travel_is_rounded_up() -> None:
    """800 bit / 3 Mbit/s = 266.67 us, and 256 / 3 = 85.33."""
    assert travel("near", linked(("gateway", "near", 3, 0), ("near", "far", 1, 0))) == (267, 86)


def test_a_narrower_return_is_faster() -> None:
    """At width 4 the gateway gets 128 bit back: 1000 + 128 / 8."""
    both = fleet(devices=[{**d, "kind": None, "macs_per_second": 3e6} for d in fleet_data()["devices"]])
    assert travel_of(device("near", both), both, embed_dim=4) == (1100, 1016)


def test_of_two_paths_the_best_depends_on_the_message() -> None:
    """The direct path has little bandwidth and no latency; the one over `near` is fast and takes 1 ms."""
    both = linked(("gateway", "far", 1, 0), ("gateway", "near", 100, 0.5), ("near", "far", 100, 0.5))
    # 800 bit: 800 us directly, 1000 + 8 over `near`. 256 bit: 256 us directly.
    assert travel("far", both) == (800, 256)
    # 80,000 bit: 80,000 us directly, 1000 + 800 over `near`; the features still return directly.
    assert travel("far", both, profile(input_bytes=10_000)) == (1800, 256)


def test_of_two_links_between_two_devices_the_best_is_taken() -> None:
    """800 bit take 800 us over the slow cable and 500 + 8 by radio; 256 bit take 256 or 502.56."""
    both = linked(("gateway", "near", 1, 0), ("near", "gateway", 100, 0.5), ("near", "far", 1, 0))
    assert travel("near", both) == (508, 256)


def test_a_link_to_a_device_with_a_count_is_a_link_to_each() -> None:
    """Each of the two equal boards is one hop away."""
    pi = {"name": "pi", "count": 2, "kind": "board", "memory_budget": 2000}
    link = {"between": ["gateway", "pi"], "bandwidth_mbps": 8, "latency_ms": 1}
    both = fleet(devices=[fleet_data()["devices"][0], pi], links=[link])
    assert travel("pi-1", both) == travel("pi-2", both) == (1100, 1032)


def test_the_default_link_reaches_what_no_path_reaches() -> None:
    """`far` has no link, so it takes the default: 500 + 800 / 3 = 766.67; `near` keeps its own, slower one."""
    both = linked(("gateway", "near", 8, 1), default=(3, 0.5))
    assert travel("far", both) == (767, 586)
    assert travel("near", both) == (1100, 1032)


def test_fusion_goes_through_all_embed_dims_and_classes() -> None:
    """10 hidden units x (8 + 4 embed dims + 2 classes) = 140 MACs at 3 MAC/us = 46.67 us."""
    assert cost.fusion_us(profile(), cost.aggregator_rate(fleet()), 12) == 47


def test_fusion_runs_at_the_rate_of_the_aggregators_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The card of the aggregator's kind states 6e6 MAC/s; the device itself states nothing."""
    monkeypatch.setattr(cost, "load_kinds", card)
    assert cost.aggregator_rate(lone(kind="stove", macs_per_second=None)) == 6 * 10**6


def test_energy_is_power_times_compute_time() -> None:
    """2.5 W x 424 us = 1.06 mJ."""
    assert device("near").energy_mj(424) == pytest.approx(1.06)


def test_energies_add_up_exactly() -> None:
    """Three times 0.1 W x 1 us are 0.3 uJ, though 0.1 + 0.1 + 0.1 is above 0.3 in binary."""
    assert 3 * cost.energy_uj(0.1, 1) == Fraction("0.3")


def test_energy_is_unknown_without_the_power() -> None:
    """`far` states no power, and its kind has no card."""
    assert device("far").energy_mj(424) is None


def test_retention_is_the_importance_kept_times_the_widths_share() -> None:
    """Class a keeps 0.3 + 0.1 + 0.1 of which width 4 retains 0.9; class b 0.05 + 0.1 + 0.1, of which 0.5."""
    heads, groups = [[0], []], [[1], [0]]
    assert cost.retention(profile(), "a", 4, heads, groups) == pytest.approx(0.45)
    assert cost.retention(profile(), "b", 4, heads, groups) == pytest.approx(0.125)
    assert cost.retention(profile(), "a", 8, heads, groups) == pytest.approx(0.5)


def test_a_precision_costs_the_retention_that_the_profile_says() -> None:
    """Class a keeps 0.5 at width 8; of that, int8 leaves 0.8 and float16, of which nothing is said, all."""
    heads, groups = [[0], []], [[1], [0]]
    lossy = profile(precision_retention={"int8": [0.8, 0.6]})
    assert cost.retention(lossy, "a", 8, heads, groups, "int8") == pytest.approx(0.4)
    assert cost.retention(lossy, "a", 8, heads, groups, "float16") == pytest.approx(0.5)
    # 0.25 x 0.5 at width 4, x 0.6.
    assert cost.retention(lossy, "b", 4, heads, groups, "int8") == pytest.approx(0.075)


def test_retention_of_an_unknown_width_is_an_error() -> None:
    """The profile has widths 8 and 4."""
    with pytest.raises(InputError, match=r"embed_dim must be a width of the profile, got 6\."):
        cost.retention(profile(), "a", 6, [[], []], [[], []])


def test_kept_counts_are_heads_and_channels() -> None:
    """Group 0 of block 0 holds 2 channels; both groups of block 1 hold 1 + 2."""
    assert cost.kept_counts(profile(), [[0, 1], []], [[0], [0, 1]]) == ([2, 0], [2, 3])


def test_an_aggregator_without_a_mac_rate_is_an_error() -> None:
    """A board has a table for the network, but no rate for the fusion."""
    with pytest.raises(InputError, match=r"device 'near': the aggregator must have a MAC rate .* give it macs_per_"):
        cost.aggregator_rate(fleet(aggregator="near"))


def test_an_unreachable_device_is_an_error() -> None:
    """`far` has no path and there is no default link."""
    message = r"device 'far': must be reachable from the aggregator 'gateway', got no path of links; add a link"
    with pytest.raises(InputError, match=message):
        cost.device_costs(profile(), linked(("gateway", "near", 8, 1)))


def test_an_unknown_kind_is_an_error_that_names_the_nearest() -> None:
    """No table and no card for "bord"; there is one for "board"."""
    with pytest.raises(InputError, match=r"device 'gateway': kind must be .* got kind 'bord'; did you mean 'board'\?"):
        cost.device_costs(profile(), lone(kind="bord", macs_per_second=None))

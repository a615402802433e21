"""Embed width as the third dimension of pruning: planned, cut and executed."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from planner.errors import InputError
from planner.executor.bundle import read_bundle
from planner.executor.evaluate import evaluate_bundle
from planner.executor.execute import execute_plan, selection
from planner.library import load_profile
from planner.network import audit, counts
from planner.network.checkpoint import load_card, load_model, whole_shape
from planner.network.surgery import cut
from planner.network.vit import VisionTransformer
from planner.rules import cost
from planner.rules.check import check
from planner.schema import Assignment, Fleet, Goal, Profile
from planner.solver import SolveOptions, solve

# ED-ViT's claim is one sub-model of ten classes against the whole model.
BASE = replace(whole_shape(load_card("vit_base_patch16_224")), num_classes=10)
TWO_TWELFTHS = replace(BASE, embed_dim=128, num_heads=(2,) * 12, hidden_dim=(512,) * 12)


def test_two_twelfths_of_every_width_of_a_vit_base() -> None:
    """34.3 times fewer parameters; 29.1 times fewer MACs in matrix products, as published, 29.0 with norms."""
    whole, small = counts.exact(BASE), counts.exact(TWO_TWELFTHS)
    assert whole.params / small.params == pytest.approx(34.26, abs=0.005)
    products = [n.macs - counts.norm_macs(s) for n, s in ((whole, BASE), (small, TWO_TWELFTHS))]
    assert products[0] / products[1] == pytest.approx(29.11, abs=0.005)
    assert whole.macs / small.macs == pytest.approx(29.0, abs=0.005)


def test_a_vit_base_is_cut_to_it() -> None:
    """A real ViT-Base after surgery has the counted parameters and MACs."""
    with torch.device("meta"):
        whole = VisionTransformer(BASE).eval()
    small = cut(whole, [[3, 7]] * 12, [range(512)] * 12, range(5, 133))
    assert small.shape == TWO_TWELFTHS
    assert sum(p.numel() for p in small.parameters()) == counts.exact(TWO_TWELFTHS).params
    assert audit.count(VisionTransformer(small.shape).eval()) == counts.exact(TWO_TWELFTHS)


def test_it_is_planned_by_the_same_numbers() -> None:
    """A profile's costs at width 128 give the same counts for 2 heads and 512 channels in each block."""
    profile = load_profile("digits-vit")
    for width in profile.widths:
        shape = replace(whole_shape(load_card("digits-vit")), embed_dim=width.embed_dim)
        small = replace(shape, num_heads=(1,) * 4, hidden_dim=(40,) * 4)
        got = cost.params(width, [1] * 4, [40] * 4), cost.macs(width, [1] * 4, [40] * 4)
        assert got == (counts.exact(small).params, counts.exact(small).macs)


@pytest.fixture(scope="module")
def profile() -> Profile:
    """Return the shipped profile, which has several widths."""
    return load_profile("digits-vit")


def tight_fleet() -> Fleet:
    """Return two boards for which sub-models of full width are too large or too slow."""
    device = {"memory_budget": "200KiB", "runtime_overhead": "48KiB", "macs_per_second": 8e7}
    return Fleet.model_validate(
        {
            "aggregator": "a",
            "devices": [{"name": "a", **device}, {"name": "b", **device, "macs_per_second": 2e7}],
            "default_link": {"bandwidth_mbps": 8, "latency_ms": 1},
        }
    )


def test_narrow_plans_are_solved_executed_and_measured(profile: Profile, tmp_path: Path) -> None:
    """A plan with narrow sub-models passes the check and is executed with the planned sizes."""
    fleet = tight_fleet()
    plan = solve(profile, fleet, Goal(max_accuracy_drop=0.2), SolveOptions(time_limit_s=20, deterministic=True))
    narrow = [a for a in plan.assignments if a.embed_dim < 64]
    assert narrow
    assert check(plan, profile, fleet) == []
    execute_plan(plan, profile, tmp_path / "bundle", epochs=1)
    bundle = read_bundle(tmp_path / "bundle")
    assert [m.shape.embed_dim for m in bundle.sub_models] == [a.embed_dim for a in plan.assignments]
    assert bundle.fusion.embed_dims == tuple(a.embed_dim for a in plan.assignments)
    evaluation = evaluate_bundle(bundle)
    assert evaluation.devices.keys() == {a.device for a in plan.assignments}


def test_the_dims_that_are_kept_are_the_most_important(profile: Profile) -> None:
    """A sub-model of width e keeps the first e dims of the profile's order, in the order of the model."""
    _, whole = load_model("digits-vit")
    a = assignment(profile, 32)
    small = selection(profile, a).cut(whole)
    dims = sorted(profile.embed_dim_order[:32])
    assert torch.equal(small.cls_token, whole.cls_token[:, :, dims])
    assert torch.equal(small.head.weight, whole.head.weight[:, dims])


def test_a_profile_that_names_no_dims_is_refused(profile: Profile) -> None:
    """A profile without an order of dims is refused, as the order cannot be guessed."""
    bare = Profile.model_validate(profile.model_dump() | {"embed_dim_order": ()})
    with pytest.raises(InputError, match=r"b: embed_dim 32 needs a profile with embed_dim_order, .* profile the model"):
        selection(bare, assignment(profile, 32))


def assignment(profile: Profile, embed_dim: int) -> Assignment:
    """Return a sub-model of one head and one group in each block, at a width."""
    return Assignment(
        device="b",
        classes=profile.classes[:2],
        embed_dim=embed_dim,
        kept_heads=((0,),) * 4,
        kept_channel_groups=((0,),) * 4,
        send_us=0,
        compute_us=0,
        return_us=0,
        memory_bytes=0,
        retention={},
        estimated=True,
    )

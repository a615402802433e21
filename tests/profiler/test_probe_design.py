"""Designs of probes: few networks of whole depth that determine all coefficients."""

from dataclasses import replace

import numpy as np
import pytest

from planner.network import counts
from planner.network.vit import Shape
from planner.network.widths import embed_widths
from planner.profiler.device.latency_fit import TimedNetwork, num_parameters
from planner.profiler.device.probe_design import NUM_NETWORKS, design_probes
from tests.helpers.timed_networks import DIGITS

TINY = Shape(224, 16, 3, 1000, 192, 64, (3,) * 12, (768,) * 12)
BASE = Shape(224, 16, 3, 1000, 768, 64, (12,) * 12, (3072,) * 12)
LARGE = Shape(224, 16, 3, 1000, 1024, 64, (16,) * 24, (4096,) * 24)
WHOLES = {"digits-vit": DIGITS, "vit-tiny": TINY, "vit-base": BASE, "vit-large": LARGE}


@pytest.mark.parametrize("name", WHOLES)
def test_the_networks_tell_all_parameters_apart(name: str) -> None:
    """24 networks of whole depth vary widths, channels come in eights, and ten coefficients are determined."""
    whole = WHOLES[name]
    widths = embed_widths(whole)
    shapes = design_probes(whole, widths, seed=0)
    assert len(shapes) == len(set(shapes)) == NUM_NETWORKS
    assert {s.depth for s in shapes} == {whole.depth}
    per_width = [sum(s.embed_dim == e for s in shapes) for e in widths]
    assert max(per_width) - min(per_width) <= 1
    assert all(c % 8 == 0 for s in shapes for c in s.hidden_dim)
    assert num_parameters([TimedNetwork(s.embed_dim, s.num_heads, s.hidden_dim, 1.0) for s in shapes]) == 10


@pytest.mark.parametrize("name", WHOLES)
def test_a_small_device_can_hold_each_network(name: str) -> None:
    """No network has more than 96 MiB of float32 weights; a model below that is among them itself."""
    whole = WHOLES[name]
    shapes = design_probes(whole, embed_widths(whole), seed=0)
    assert max(counts.exact(s).params * 4 for s in shapes) <= 96 * 2**20
    assert (whole in shapes) == (counts.exact(whole).params * 4 <= 96 * 2**20)


@pytest.mark.parametrize("name", WHOLES)
def test_no_network_stands_alone(name: str) -> None:
    """Each left-out network is predicted from the others with at most six times the noise of a timing.

    By the textbook: with leverage h, the variance of a left-out prediction's error is 1 / (1 - h) of the noise's.
    """
    whole = WHOLES[name]
    E = whole.embed_dim
    rows = []
    for s in design_probes(whole, embed_widths(whole), seed=0):
        halves = sum(h > 0 for h in s.num_heads), sum(c > 0 for c in s.hidden_dim)
        counted = np.array([1, halves[0], sum(s.num_heads), halves[1], sum(s.hidden_dim)])
        rows.append(np.concatenate([counted, counted * s.embed_dim / E]))
    scaled = np.array(rows) / np.max(rows, axis=0)
    scaled /= scaled.sum(1, keepdims=True)
    leverage = np.diag(scaled @ np.linalg.pinv(scaled))
    assert leverage.sum() == pytest.approx(10)
    assert leverage.max() < 1 - 1 / 36


def test_the_seed_decides() -> None:
    """The same seed gives the same networks, another one others."""
    widths = embed_widths(DIGITS)
    assert (
        design_probes(DIGITS, widths, seed=1)
        == design_probes(DIGITS, widths, seed=1)
        != design_probes(DIGITS, widths, seed=2)
    )


def test_the_smallest_model_has_probes_too() -> None:
    """A model of one block, one head, four channels and one width has probes, too."""
    whole = replace(DIGITS, embed_dim=8, num_heads=(1,), hidden_dim=(4,))
    shapes = design_probes(whole, embed_widths(whole), seed=0)
    assert len(shapes) == NUM_NETWORKS
    assert {s.hidden_dim for s in shapes} <= {(0,), (4,)}

"""Every plan of a tiny instance, with latency and predicted loss: an oracle that shares no code with the planner.

Legend: P plans, C classes, D devices.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from planner.schema import Fleet, Profile
from tests.helpers import brute_costs
from tests.helpers.accuracy import losses_of
from tests.helpers.brute_costs import Form, Ints
from tests.helpers.brute_force import FORGIVEN, fusion_us
from tests.helpers.common import Json


@dataclass(frozen=True, eq=False)
class AllPlans:
    """Latency [us] and predicted loss of every plan, each (P,)."""

    latency_us: Ints
    losses: NDArray[np.float64]

    def least_loss(self, limit_us: float) -> float | None:
        """Return the least predicted loss within a latency [us]; None if there is no plan."""
        within = self.losses[self.latency_us <= limit_us]
        return float(within.min()) if len(within) else None

    def least_latency_us(self, max_loss: float) -> int | None:
        """Return the least latency [us] of a plan that loses at most so much; None if there is no plan."""
        keeping = self.latency_us[self.losses <= max_loss]
        return int(keeping.min()) if len(keeping) else None


def all_plans(of: Profile, on: Fleet, floors: Sequence[float] = ()) -> AllPlans:
    """Return every plan without demands, on one or two devices.

    Args:
        of: Profile with an accuracy model and at most 8 units.
        on: Fleet of one or two devices.
        floors: Retention floor of each class, if any.
    """
    profile, fleet = of.model_dump(mode="json"), on.model_dump(mode="json")
    members = brute_costs.members(fleet)
    least = np.array(floors or [0.0] * len(profile["classes"])) - FORGIVEN
    choices: list[list[Form | None]] = [[None, *brute_costs.forms(profile, device)] for device in members.values()]
    found = [
        _plans(profile, fleet, {n: form for n, form in zip(members, forms, strict=True) if form is not None}, least)
        for forms in itertools.product(*choices)
        if any(form is not None for form in forms)
    ]
    return AllPlans(np.concatenate([p.latency_us for p in found]), np.concatenate([p.losses for p in found]))


def _plans(profile: Json, fleet: Json, used: dict[str, Form], least: NDArray[np.float64]) -> AllPlans:
    """Return every plan on these devices, at these embed dims and precisions."""
    sends = brute_costs.travel_us([brute_costs.route(fleet, name, profile["input_bytes"]) for name in used])
    sizes = {name: profile["feature_bytes_per_embed_dim"] * form.embed_dim for name, form in used.items()}
    returns = brute_costs.travel_us([brute_costs.route(fleet, name, size) for name, size in sizes.items()])
    rows, weights, times = [], [], []
    for form, send_us, return_us in zip(used.values(), sends, returns, strict=True):
        # A device that serves nothing is idle.
        serving = (form.kept >= least).any(axis=1)
        rows.append(form.kept[serving])
        weights.append(form.weights[serving])
        times.append(send_us + form.compute_us[serving] + return_us)
    every = np.indices([len(t) for t in times]).reshape(len(times), -1)  # (D, P)
    kept = np.stack([row[i] for row, i in zip(rows, every, strict=True)], axis=1)  # (P, D, C)
    slowest_us = np.max([t[i] for t, i in zip(times, every, strict=True)], axis=0)
    served = np.all((kept >= least).any(axis=1), axis=1)
    latency_us = slowest_us + fusion_us(profile, fleet, sum(form.embed_dim for form in used.values()))
    best = np.max([row[i] for row, i in zip(weights, every, strict=True)], axis=0)  # (P, U)
    union = np.maximum(np.minimum(1.0, best @ brute_costs.importance_of_units(profile)), kept.max(axis=1))
    return AllPlans(latency_us[served], losses_of(profile["accuracy_model"], kept[served], union[served]))

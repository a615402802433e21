"""Thirteen classes on two unlike devices, small enough to try every division."""

from functools import cache

import numpy as np

from planner.arrays import Ints
from planner.schema import Fleet, Profile
from planner.solver.large.class_bounds import ClassBounds
from planner.solver.large.column_generation import ColumnGeneration
from planner.solver.problem.build import build_instance
from planner.solver.problem.instance import Instance
from planner.solver.problem.option import Option
from tests.helpers.goals import floored
from tests.helpers.random_instances import random_profile
from tests.helpers.solver_instances import sharpened
from tests.helpers.sub_model_enumeration import NO_SUB_MODEL, SubModelTable, enumerate_sub_models

NUM_CLASSES = 13


@cache
def drawn(seed: int) -> tuple[Profile, Fleet]:
    """Return 13 classes in clusters on a hub and a board that is faster, in memory that binds for odd seeds."""
    of = random_profile(7000 + seed, num_classes=NUM_CLASSES)
    of = sharpened(of) if seed % 3 else of
    width = of.widths[0]
    units = 4 * (sum(width.head_params) * of.num_heads + sum(width.channel_params) * of.hidden_dim)
    whole = 4 * width.fixed_params + units + 10_000
    device = {"memory_budget": whole, "runtime_overhead": 0, "macs_per_second": 1e6}
    board = {"memory_budget": whole - (units // 3 if seed % 2 else 0), "macs_per_second": 1.5e6 + 1e5 * (seed % 5)}
    devices = [device | {"name": "hub"}, device | {"name": "board"} | board]
    link = {"bandwidth_mbps": 100.0, "latency_ms": 0.05}
    return of, Fleet.model_validate({"aggregator": "hub", "devices": devices, "default_link": link})


@cache
def instance_of(seed: int) -> Instance:
    """Return the instance of `drawn`."""
    return build_instance(*drawn(seed), floored(min_retention=(0.4, 0.55, 0.7)[seed % 3]))


@cache
def best_us(seed: int) -> int:
    """Return the least latency [us] of the slower device, by trying all divisions of the classes."""
    instance = instance_of(seed)
    times = [_times_us(instance, option) for option in instance.options]
    divided = np.maximum(times[0], times[1][::-1])
    return int(divided.min())


def _times_us(instance: Instance, option: Option) -> Ints:
    """Return the latency [us] of a device for each class subset, as a bit mask, (2^C,)."""
    table = enumerate_sub_models(instance, option)
    return np.array([0, *(_time_us(table, mask) for mask in range(1, 2**NUM_CLASSES))])


def _time_us(table: SubModelTable, mask: int) -> int:
    us = table.cheapest_us(tuple(c for c in range(NUM_CLASSES) if mask >> c & 1))
    return us if us >= NO_SUB_MODEL else us + table.option.alone_us


def generation_of(instance: Instance) -> ColumnGeneration:
    """Return an unused column generation."""
    return ColumnGeneration(instance, ClassBounds(instance).single_us)

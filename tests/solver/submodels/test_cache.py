"""The cache of sub-models: what the heuristic builds, unless something better was added."""

from dataclasses import replace

import numpy as np

from planner.solver.problem.clock import Clock
from planner.solver.problem.instance import NEVER, Instance
from planner.solver.submodels.cache import SubModelCache
from planner.solver.submodels.lagrangian import LagrangianHeuristic
from tests.helpers.sub_model_enumeration import instance_of, subsets

SEEDS = (2, 3, 6, 9)


def built_us(instance: Instance, wanted: list[tuple[int, ...]]) -> dict[tuple[int, tuple[int, ...]], int]:
    """Return the least latency [us] of the heuristic's sub-models by group and class subset; `NEVER` if none."""
    found = {(g, classes): NEVER for g in range(len(instance.groups)) for classes in wanted}
    for option in instance.options:
        compute_us = LagrangianHeuristic(instance, option).build(wanted).compute_us.tolist()
        for classes, time_us in zip(wanted, compute_us, strict=True):
            key = option.group, classes
            found[key] = min(found[key], NEVER if time_us >= NEVER else option.alone_us + time_us)
    return found


def test_the_cache_returns_the_best_of_the_options() -> None:
    """Latency, classes and units are those of the heuristic's fastest sub-model on the group; idle takes no time."""
    for seed in SEEDS:
        instance = instance_of(seed)
        cache = SubModelCache(instance, Clock(60))
        expected_us = built_us(instance, subsets(instance))
        wanted = [(g, classes) for g in range(len(instance.groups)) for classes in [*subsets(instance), ()]]
        for (g, classes), found in zip(wanted, cache.sub_models(wanted), strict=True):
            if not classes:
                assert found.latency_us == 0
                continue
            assert found.latency_us == expected_us[g, classes]
            if found.latency_us < NEVER:
                placed = cache.placed(g, classes)
                assert (placed.option.group, placed.classes) == (g, classes)
                assert placed.option.alone_us + instance.compute_us(placed.option, placed.kept) == found.latency_us
                assert instance.fits(placed.option, placed.kept)
                assert instance.meets_floors(placed.option, classes, placed.kept)


def test_only_better_sub_models_are_added() -> None:
    """A slower sub-model changes nothing, a faster one replaces the known one."""
    instance = instance_of(3)
    cache = SubModelCache(instance, Clock(60))
    option = instance.options[0]
    classes = next(some for some in subsets(instance) if cache.sub_models([(option.group, some)])[0].latency_us < NEVER)
    known = cache.placed(option.group, classes)
    o = instance.options.index(known.option)
    cache.improve(option.group, classes, o, range(len(instance.units)))
    assert cache.placed(option.group, classes) == known
    # Without its floors in mind, the anchor head alone is faster.
    anchor = instance.units.always_kept
    cache.improve(option.group, classes, o, anchor)
    assert cache.placed(option.group, classes).kept == anchor
    assert np.flatnonzero(cache.kept(cache.known[option.group, classes])).tolist() == list(anchor)


def test_sub_models_are_built_once() -> None:
    """A second request counts no more work than none."""
    instance, clock = instance_of(2), Clock(60, deterministic=True)
    cache = SubModelCache(instance, clock)
    wanted = [(0, classes) for classes in subsets(instance)]
    first = cache.sub_models(wanted)
    left_s = clock.left()
    assert left_s < 60
    again = cache.sub_models(wanted[::-1])
    assert again == first[::-1]
    assert clock.left() == left_s


def test_fewer_classes_may_take_the_sub_model_of_more() -> None:
    """It is taken where it is faster than the known one, and of a class set that is not known there is none."""
    instance = instance_of(3)
    cache = SubModelCache(instance, Clock(60))
    sizes = sorted((key for key in subsets(instance) if cache.sub_models([(0, key)])[0].latency_us < NEVER), key=len)
    more, some = sizes[-1], sizes[-1][:1]
    known = cache.sub_models([(0, some)])[0]
    cache.reuse(0, some, more)
    assert cache.known[0, some] == known
    cache.known[0, some] = replace(known, latency_us=NEVER)
    cache.reuse(0, some, (0, 99))
    assert cache.known[0, some].latency_us == NEVER
    cache.reuse(0, some, more)
    assert cache.known[0, some] == cache.known[0, more]

"""Documents written and read again: equal, with the same hash."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from planner.schema import Fleet, Goal, Plan, Profile, read_document, sha256_of, to_json, write_document
from planner.schema.text import look_of
from planner.solver import solve
from planner.units import visible
from tests.helpers.accuracy import predictable
from tests.helpers.complaints import FLEET, PROFILE
from tests.helpers.pencil import fleet_data
from tests.helpers.random_instances import random_fleet, random_profile


def test_the_schema_key_of_editors_is_allowed() -> None:
    """`$schema` is read, and neither kept nor hashed."""
    FLEET.write_text(json.dumps(fleet_data() | {"$schema": "https://example.org/devices.json"}))
    fleet = read_document(FLEET, Fleet)
    assert sha256_of(fleet) == sha256_of(Fleet.model_validate(fleet_data()))
    assert "$schema" not in to_json(fleet)


def test_documents_are_frozen() -> None:
    """Assigning to a field of a document is an error."""
    fleet = Fleet.model_validate(fleet_data())
    with pytest.raises(ValidationError, match="frozen"):
        fleet.name = "other"  # type: ignore[misc]


def is_name(text: str) -> bool:
    """Return whether a text may be a name."""
    return visible(text) == text and look_of(text) != ""


names = st.text(min_size=1, max_size=12).filter(is_name)


positive = st.floats(1, 1e9)


devices = st.fixed_dictionaries(
    {"memory_budget": st.integers(1, 2**45), "macs_per_second": positive},
    optional={
        "kind": names,
        "count": st.integers(1, 5),
        "runtime_overhead": st.integers(0, 2**45),
        "active_power_w": st.floats(1, 1e6),
        "precision": st.sampled_from(["float32", "float16", "int8"]),
    },
)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """Draw a fleet of up to 5 devices, linked in a row, with names in any script."""
    # Without a hyphen, no name is that of another with a count.
    called = draw(st.lists(names.filter(lambda name: "-" not in name), min_size=1, max_size=5, unique_by=look_of))
    drawn = [draw(devices) | {"name": name} for name in called]
    drawn[0].pop("count", None)
    speed = st.fixed_dictionaries({"bandwidth_mbps": positive, "latency_ms": st.floats(0, 1e6)})
    links = [draw(speed) | {"between": pair} for pair in itertools.pairwise(called)]
    data = {"name": draw(names), "aggregator": called[0], "devices": drawn, "links": links}
    return Fleet.model_validate(data | {"default_link": draw(st.none() | speed)})


@settings(deadline=None)
@given(fleet=fleets())
def test_a_fleet_survives_its_file(fleet: Fleet) -> None:
    """A fleet written and read again is equal and has the same hash."""
    write_document(FLEET, fleet)
    again = read_document(FLEET, Fleet)
    assert again == fleet
    assert sha256_of(again) == sha256_of(fleet)


@pytest.mark.parametrize("seed", range(5))
def test_profiles_and_plans_survive_their_files(seed: int) -> None:
    """Profiles and plans written and read again are equal and have the same hash."""
    profile = random_profile(seed, widths=(8, 4), kinds=("a",))
    profile = predictable(profile, seed)
    plan = solve(profile, random_fleet(profile, seed, tightness=2.0), Goal(max_accuracy_drop=0.3))
    assert plan.predicted_accuracy is not None
    write_document(PROFILE, profile)
    write_document(Path("plan.json"), plan)
    assert read_document(PROFILE, Profile) == profile
    assert sha256_of(read_document(PROFILE, Profile)) == sha256_of(profile)
    assert read_document(Path("plan.json"), Plan) == plan


def test_the_hash_is_of_the_content() -> None:
    """Spelled-out defaults and units do not change the hash; one more byte of memory does."""
    data = fleet_data()
    same = fleet_data() | {"schema_version": 1, "default_link": None}
    same["devices"][1] |= {"memory_budget": "2KB", "precision": "float32"}
    more = fleet_data()
    more["devices"][1]["memory_budget"] += 1
    hashes = [sha256_of(Fleet.model_validate(d)) for d in (data, same, more)]
    assert hashes[0] == hashes[1] != hashes[2]

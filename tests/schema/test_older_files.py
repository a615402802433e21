"""Files that older versions wrote: read, with what has no meaning any more forgotten."""

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from planner.errors import InputError
from planner.schema import Plan, PredictedAccuracy, Profile, json_schema, read_document, sha256_of, to_json
from planner.solver import solve
from tests.helpers.common import Json
from tests.helpers.complaints import PROFILE
from tests.helpers.goals import floored
from tests.helpers.pencil import ACCURACY_MODEL, fleet, profile, profile_data

PLAN = Path("plan.json")
OLDER: Json = {
    "recovery": [{"max_accuracy_drop": 0.02, "by_count": [0.4, 0.6], "class_need": [1.0, 1.1]}],
    "fused_accuracy": {
        "intercept": -4.0,
        "log_num_classes": 0.5,
        "log_best_retention": 2.0,
        "log_other_retention": 0.3,
        "class_offset": [0.2, -0.2],
        "whole_error": 0.03,
        "log_error": 0.25,
        "num_probes": 16,
    },
}


@pytest.mark.parametrize("older", [OLDER, {"recovery": [], "fused_accuracy": None}, {"recovery": None}], ids=str)
def test_older_profiles_are_read(older: Json) -> None:
    """What older predictions were made from is forgotten: the profile is that without it, and does not write it."""
    PROFILE.write_text(json.dumps(profile_data() | older))
    found = read_document(PROFILE, Profile)
    assert found == profile()
    assert sha256_of(found) == sha256_of(profile())
    assert to_json(found) == to_json(profile())
    assert not {"recovery", "fused_accuracy"} & json.loads(to_json(found)).keys()
    assert found.accuracy_model is None
    assert found.replace(accuracy_model=ACCURACY_MODEL) == profile(accuracy_model=ACCURACY_MODEL)
    assert "recovery" not in repr(found)


def test_older_plans_are_read() -> None:
    """A predicted accuracy with an error in place of an interval: nothing is known of its interval, or of a loss."""
    data = solve(profile(), fleet(), floored()).model_dump(mode="json")
    data["predicted_accuracy"] = {"accuracy": 0.95, "error": 0.01}
    for key in ("retention_floor", "goal_bound_us"):
        del data[key]
    PLAN.write_text(json.dumps(data))
    found = read_document(PLAN, Plan)
    assert found.predicted_accuracy == PredictedAccuracy(accuracy=0.95, loss=0.0, low=0.0, high=1.0, epochs=0.0)
    assert "error" not in json.loads(to_json(found))["predicted_accuracy"]
    assert (found.retention_floor, found.goal_bound_us) == (None, None)


@pytest.mark.parametrize(("name", "part", "keys"), [("profile", None, OLDER), ("plan", "PredictedAccuracy", ["error"])])
def test_editors_do_not_suggest_older_keys(name: str, part: str | None, keys: Any) -> None:
    """The JSON Schema lists no key that would be forgotten, and all others."""
    schema = json_schema(name)
    properties = schema["properties"] if part is None else schema["$defs"][part]["properties"]
    model: type[BaseModel] = Profile if part is None else PredictedAccuracy
    assert not set(keys) & properties.keys()
    assert properties.keys() - {"$schema"} == model.model_fields.keys() - set(keys) - {"schema_uri"}


def test_only_the_older_keys_are_forgotten() -> None:
    """Any other key that is unknown is refused, as ever."""
    PROFILE.write_text(json.dumps(profile_data() | {"recoverry": []}))
    with pytest.raises(InputError, match="unknown key 'recoverry'"):
        read_document(PROFILE, Profile)

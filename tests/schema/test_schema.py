"""Files that are not what they should be: every mistake is named in one sentence."""

import json

import pytest

from planner.errors import InputError
from planner.schema import Fleet, Profile, read_document
from tests.helpers.common import Json
from tests.helpers.complaints import FLEET, PROFILE, complaint, fleet_complaint
from tests.helpers.pencil import fleet_data, profile_data


def test_the_data_of_these_tests_is_right() -> None:
    """Unchanged, the pencil files are read without complaint."""
    FLEET.write_text(json.dumps(fleet_data()))
    PROFILE.write_text(json.dumps(profile_data()))
    assert read_document(FLEET, Fleet).aggregator == "gateway"
    assert read_document(PROFILE, Profile).model == "pencil"


def test_missing_file() -> None:
    """A missing file is named."""
    with pytest.raises(InputError, match=r"\Adevices\.json: no such file\.\Z"):
        read_document(FLEET, Fleet)


def test_a_folder() -> None:
    """A folder in place of a file is named."""
    FLEET.mkdir()
    with pytest.raises(InputError, match=r"\Adevices\.json: must be a file, got a folder\.\Z"):
        read_document(FLEET, Fleet)


def test_not_text() -> None:
    """A file must be UTF-8; the first wrong byte is named."""
    assert complaint(b'{"\xc3\xff') == "must be UTF-8 text, byte 2 is not."


def test_not_json() -> None:
    """A syntax error is named with line and column."""
    assert complaint('{"name": "x"\n "a": 1}') == "line 2, column 2: not JSON (Expecting ',' delimiter)."


def test_an_empty_file() -> None:
    """An empty file is not JSON."""
    assert complaint("") == "line 1, column 1: not JSON (Expecting value)."


@pytest.mark.parametrize("text", ["[]", "3", "null", '"devices"', "[[1]]"])
def test_json_of_another_shape(text: str) -> None:
    """A file must hold a JSON object."""
    assert "must be an object" in complaint(text)


def test_endless_nesting() -> None:
    """JSON nested a hundred thousand levels deep is refused."""
    assert complaint("[" * 100_000 + "]" * 100_000) == "nested too deeply to be a fleet."


def test_half_of_a_character() -> None:
    """A lone surrogate is refused, though JSON can spell it."""
    assert complaint(r'{"name": "\ud800"}').startswith("not JSON (")


def test_duplicate_key() -> None:
    """A repeated key is refused, though JSON allows it."""
    assert complaint('{"name": "x", "name": "y"}') == "key 'name' is given twice in one object."


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_not_finite(constant: str) -> None:
    """NaN and infinity are refused, though Python reads them."""
    text = json.dumps(fleet_data()).replace("2.5", constant)
    assert complaint(text) == f"numbers must be finite, got {constant}."


def test_numbers_too_large() -> None:
    """A number that overflows to infinity is refused."""
    text = json.dumps(fleet_data()).replace("2.5", "1e999")
    assert complaint(text).startswith("devices[1] 'near': active_power_w must be a finite number, got")


def test_misspelled_key() -> None:
    """A misspelled key is reported with the nearest one, rather than the key that is missing because of it."""

    def misspell(data: Json) -> None:
        data["devices"][1]["memory_budgte"] = data["devices"][1].pop("memory_budget")

    message = fleet_complaint(misspell)
    assert message.startswith("devices[1] 'near': unknown key 'memory_budgte'; did you mean 'memory_budget'?")


def test_unknown_key_like_no_other() -> None:
    """An unknown key without a near one gets no suggestion."""
    assert fleet_complaint(lambda data: data.update(xyzzy=1)) == "unknown key 'xyzzy'."


def test_missing_key() -> None:
    """A missing key is named with its place."""
    assert fleet_complaint(lambda data: data["devices"][2].pop("memory_budget")) == (
        "devices[2] 'far': memory_budget is missing."
    )


def test_another_schema_version() -> None:
    """Only schema version 1 is read."""
    assert fleet_complaint(lambda data: data.update(schema_version=2)) == "schema_version must be <= 1, got 2."

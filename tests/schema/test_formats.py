"""docs/formats.md and the JSON Schemas are up to date and agree with the shipped files."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from planner.file_formats import FILE_FORMATS
from planner.library import folder, load_kinds
from planner.schema import DOCUMENTS, Evaluation, Manifest, json_schema, read_document
from tests.helpers.common import ROOT, Json

PROFILES, MODELS = folder("profiles"), folder("models")

FILES = [
    *(("devices", path) for path in (ROOT / "examples").rglob("devices.json")),
    *(("devices", path) for path in (ROOT / "examples" / "photos").glob("*s.json") if path.stem != "card-additions"),
    ("plan", ROOT / "examples" / "by-hand" / "plan.json"),
    ("profile", ROOT / "examples" / "by-hand" / "profile.json"),
    *(("profile", path) for path in PROFILES.glob("*.json")),
    *(("kind", path) for path in (PROFILES / "devices").glob("*.json")),
    *(("card", path) for path in MODELS.glob("*/card.json")),
]


def page_maker() -> Any:
    """Return the script docs/formats.py as a module."""
    spec = importlib.util.spec_from_file_location("formats", ROOT / "docs" / "formats.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = page_maker()


def complaints(name: str, data: Json) -> list[str]:
    """Return the errors that an editor would show."""
    return [error.message for error in Draft202012Validator(json_schema(name, load_kinds())).iter_errors(data)]


def parts(name: str) -> Iterator[tuple[str, Json]]:
    """Yield each object of a schema that has keys."""
    schema = json_schema(name)
    yield name, schema
    yield from schema.get("$defs", {}).items()


def test_the_page_is_fresh() -> None:
    """docs/formats.md is what `make docs` writes."""
    assert MAKER.PAGE.read_text() == MAKER.page()


@pytest.mark.parametrize("name", FILE_FORMATS)
def test_schemas_are_schemas(name: str) -> None:
    """Each schema is valid, has a version, an id and a title, and describes every object and key."""
    schema = json_schema(name, load_kinds())
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"].endswith("/draft/2020-12/schema")
    assert name in schema["$id"]
    assert schema["title"].endswith(".json")
    for part, entry in parts(name):
        assert entry["description"], part
        for key, value in entry["properties"].items():
            assert value["description"].rstrip("].)").strip(), f"{part}.{key}"
            assert "title" not in value


@pytest.mark.parametrize(("name", "path"), FILES, ids=lambda value: getattr(value, "name", value))
def test_files_are_valid(name: str, path: Path) -> None:
    """Every shipped file is valid by its schema."""
    assert complaints(name, json.loads(path.read_text())) == []


@pytest.mark.parametrize("name", FILE_FORMATS)
def test_examples_are_valid(name: str) -> None:
    """The example of each format is valid by its schema, and can be read."""
    example = MAKER.example(name)
    assert complaints(name, json.loads(example)) == []
    DOCUMENTS[name].model_validate_json(example, strict=True)


def devices() -> Json:
    """Return the demo fleet."""
    data: Json = json.loads((ROOT / "examples" / "devices.json").read_text())
    return data


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"memory_bugdet": 1}, "memory_bugdet"),
        ({"memory_budget": "512 mebibytes"}, "512 mebibytes"),
        ({"memory_budget": -1}, "-1"),
        ({"precision": "float64"}, "float64"),
        ({"count": 0}, "0 is less than the minimum of 1"),
        ({"kind": 5}, "5"),
    ],
)
def test_an_editor_marks_mistakes(change: Json, sentence: str) -> None:
    """A misspelled key and a wrong value are invalid by the schema and refused by the planner."""
    data = devices()
    data["devices"][1] |= change
    (message,) = complaints("devices", data)
    assert sentence in message
    with pytest.raises(ValueError, match="validation error"):
        DOCUMENTS["devices"].model_validate_json(json.dumps(data), strict=True)


def test_a_device_has_a_kind_or_a_rate() -> None:
    """A device without either is marked."""
    data = devices()
    del data["devices"][1]["kind"]
    assert complaints("devices", data) != []
    data["devices"][1]["macs_per_second"] = 1e8
    assert complaints("devices", data) == []


def test_kinds_are_suggested_not_demanded() -> None:
    """The schema suggests the shipped kinds and accepts any other."""
    kind = json_schema("devices", load_kinds())["$defs"]["Device"]["properties"]["kind"]
    assert set(kind["anyOf"][0]["enum"]) == set(load_kinds())
    data = devices()
    data["devices"][1]["kind"] = "my-board"
    assert complaints("devices", data) == []


@pytest.mark.parametrize(
    ("size", "is_one"),
    [("512MiB", True), ("1.5 GB", True), (" 3KiB ", True), (7, True), (2e9, True), ("7", False), ("1kB", False)],
)
def test_sizes_are_what_the_planner_reads(size: object, is_one: bool) -> None:
    """The schema and the planner agree on valid sizes."""
    data = devices()
    data["devices"][1]["memory_budget"] = size
    assert (complaints("devices", data) == []) == is_one
    try:
        DOCUMENTS["devices"].model_validate_json(json.dumps(data), strict=True)
    except ValueError:
        assert not is_one
    else:
        assert is_one


def test_written_formats_can_be_read(tmp_path: Path) -> None:
    """The examples of a manifest and of an evaluation can be read as files."""
    for name, model in (("bundle", Manifest), ("evaluation", Evaluation)):
        path = tmp_path / f"{name}.json"
        path.write_text(MAKER.example(name))
        assert read_document(path, model).model_dump(mode="json") == json.loads(MAKER.example(name))

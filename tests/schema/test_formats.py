"""docs/formats.md and the JSON Schemas: fresh, whole, and true of the files that there are."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from planner.cli import options
from planner.library import folder, load_kinds
from planner.schema import FORMATS, Evaluation, Manifest, json_schema, read_document

Json = dict[str, Any]

ROOT = Path(__file__).parent.parent.parent
PROFILES, MODELS = folder("profiles"), folder("models")

FILES = [
    *(("devices", path) for path in (ROOT / "examples").rglob("devices.json")),
    ("devices", ROOT / "examples" / "pis.json"),
    ("plan", ROOT / "examples" / "by-hand" / "plan.json"),
    ("profile", ROOT / "examples" / "by-hand" / "profile.json"),
    *(("profile", path) for path in PROFILES.glob("*.json")),
    *(("kind", path) for path in (PROFILES / "devices").glob("*.json")),
    *(("card", path) for path in MODELS.glob("*/card.json")),
]


def page_maker() -> Any:
    """Return docs/formats.py, which is a script and no part of a package."""
    spec = importlib.util.spec_from_file_location("formats", ROOT / "docs" / "formats.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


MAKER = page_maker()


def complaints(name: str, data: Json) -> list[str]:
    """Return what an editor would mark."""
    return [error.message for error in Draft202012Validator(json_schema(name, load_kinds())).iter_errors(data)]


def parts(name: str) -> Iterator[tuple[str, Json]]:
    """Yield each object of a schema that has keys."""
    schema = json_schema(name)
    yield name, schema
    yield from schema.get("$defs", {}).items()


def test_the_page_is_fresh() -> None:
    """docs/formats.md is what `make docs` writes."""
    assert MAKER.PAGE.read_text() == MAKER.page()


@pytest.mark.parametrize("name", FORMATS)
def test_schemas_are_schemas(name: str) -> None:
    """Each is valid JSON Schema, says which, has an id and a title, and describes every object and key."""
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
    """Every file that comes along is what its schema says."""
    assert complaints(name, json.loads(path.read_text())) == []


@pytest.mark.parametrize("name", FORMATS)
def test_examples_are_valid(name: str) -> None:
    """The example of each format is what its schema says, and is read."""
    example = MAKER.example(name)
    assert complaints(name, json.loads(example)) == []
    FORMATS[name].model.model_validate_json(example, strict=True)


def devices() -> Json:
    """Return the demo fleet."""
    data: Json = json.loads((ROOT / "examples" / "devices.json").read_text())
    return data


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"memory_bugdet": 1}, "memory_bugdet"),
        ({"memory_budget": "512 mebibytes"}, "512 mebibytes"),
        ({"memory_budget": -1}, "-1"),
        ({"precision": "float64"}, "float64"),
        ({"count": 0}, "0 is less than the minimum of 1"),
        ({"kind": 5}, "5"),
    ],
)
def test_an_editor_marks_mistakes(change: Json, said: str) -> None:
    """A device with a misspelled key, or a value that cannot be, is marked where the planner refuses it, too."""
    data = devices()
    data["devices"][1] |= change
    (message,) = complaints("devices", data)
    assert said in message
    with pytest.raises(ValueError, match="validation error"):
        FORMATS["devices"].model.model_validate_json(json.dumps(data), strict=True)


def test_a_device_has_a_kind_or_a_rate() -> None:
    """A device without either is marked."""
    data = devices()
    del data["devices"][1]["kind"]
    assert complaints("devices", data) != []
    data["devices"][1]["macs_per_second"] = 1e8
    assert complaints("devices", data) == []


def test_kinds_are_suggested_not_demanded() -> None:
    """An editor offers the kinds that come along, and takes one that only a profile knows."""
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
    """An editor and the planner agree on what a size is."""
    data = devices()
    data["devices"][1]["memory_budget"] = size
    assert (complaints("devices", data) == []) == is_one
    try:
        FORMATS["devices"].model.model_validate_json(json.dumps(data), strict=True)
    except ValueError:
        assert not is_one
    else:
        assert is_one


def test_every_format_has_its_schema_printed() -> None:
    """`planner schema` knows each format, by the same names."""
    assert list(options.FORMAT_NAMES) == list(FORMATS)


def test_what_is_only_written_can_be_read(tmp_path: Path) -> None:
    """The examples of a manifest and of an evaluation are read as files."""
    for name, model in (("bundle", Manifest), ("evaluation", Evaluation)):
        path = tmp_path / f"{name}.json"
        path.write_text(MAKER.example(name))
        assert read_document(path, model).model_dump(mode="json") == json.loads(MAKER.example(name))

"""Text that would break a table, a path or a message: names are visible and distinct, paths and sentences short."""

import json
from pathlib import Path

import pytest

from planner.errors import InputError
from planner.schema import Fleet, ModelCard, Profile, read_document
from planner.schema.base import check_can_write
from planner.schema.formats import DOCUMENTS, json_schema
from planner.schema.text import check_names_differ
from planner.units import visible
from tests.helpers.common import ROOT, Json
from tests.helpers.complaints import complaint, device_complaint, fleet_complaint
from tests.helpers.pencil import fleet_data, profile_data


@pytest.mark.parametrize(
    "name", ["a\nb", "\x1b[2J", "\x9b31m", "\u202eevil", "zero\u200bwidth", "\ufeffpi", " ", "\u3000", "\u200d", "a\0"]
)
def test_a_name_is_visible(name: str) -> None:
    """Control characters, marks that reorder text, and names of nothing are refused, and are not printed."""
    message = device_complaint(name=name)
    assert "name must have " in message
    assert visible(message) == message


@pytest.mark.parametrize("name", ["Küche", "台所", "pi 4", "👨‍👩‍👧", "a.b=c", "می‌خواهم", "<b>"])
def test_a_name_may_have_any_letters(name: str) -> None:
    """Joiners within emoji and scripts that need them are no invisible characters."""
    data = json.loads(json.dumps(fleet_data()).replace('"near"', json.dumps(name)))
    assert Fleet.model_validate(data).devices[1].name == name


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("caf\u00e9", "cafe\u0301"),
        ("a b", "a\u00a0b"),
        ("\ufb01x", "fix"),
        ("pi-a", "pi-\u0430"),
        ("\u0391\u0392", "AB"),
        ("\u0441", "c"),
    ],
)
def test_names_that_look_the_same_are_refused(name: str, other: str) -> None:
    """Two spellings of a letter, two kinds of blank, a ligature, two alphabets: the message shows how they differ."""

    def twins(data: Json) -> None:
        data["devices"][1]["name"], data["devices"][2]["name"] = name, other
        data["links"] = []

    message = fleet_complaint(twins)
    assert message.startswith("devices: names must differ in what is seen of them, got ")
    assert ascii(name) in message
    assert ascii(other) in message


def test_classes_may_be_letters_of_two_alphabets() -> None:
    """A model that reads them tells them apart; names of devices in one alphabet are never twins."""
    data = profile_data() | {"classes": ["A", "\u0410"]}
    assert Profile.model_validate(data).classes == ("A", "\u0410")
    for alphabet in (range(0x391, 0x3CA), range(0x400, 0x530)):
        check_names_differ([chr(code) for code in alphabet if chr(code).isalpha()], "devices", across_scripts=True)


def test_upper_and_lower_case_are_two_names() -> None:
    """They are seen to differ."""
    data = json.loads(json.dumps(fleet_data()).replace('"far"', '"NEAR"'))
    assert Fleet.model_validate(data).devices[2].name == "NEAR"


def test_a_name_has_room_for_its_number() -> None:
    """The single devices of a long name with a count must have names, too."""
    message = device_complaint(name="n" * 199, count=10)
    assert message.startswith(f"devices[1] '{'n' * 39}")
    assert "name must have at most 200 characters with its number, got 202" in message


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("a\0b", "must be a path without control characters"),
        ("x" * 300, "must be a path whose parts have at most 255 bytes"),
        ("x/" * 2500, "must have at most 1000 characters"),
        ("", "must have at least 1 character"),
    ],
)
def test_paths_in_files_are_bounded(path: str, reason: str, tmp_path: Path) -> None:
    """No path of a card or a bundle is one that no system takes."""
    card = json.loads((ROOT / "models" / "digits-vit" / "card.json").read_text())
    npz = {"source": "npz", "train": path, "test": "t.npz"}
    for changes, place in (({"weights": path}, "weights"), ({"data": npz}, "data: train")):
        (tmp_path / "card.json").write_text(json.dumps(card | changes))
        with pytest.raises(InputError, match=rf"card\.json: {place} {reason}"):
            read_document(tmp_path / "card.json", ModelCard)
    manifest = {"model": "m", "recipe": "default", "epochs": 0, "seed": 0, "teacher_sha256": "0" * 64, "devices": {}}
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"sha256": {path: "0" * 64}}))
    with pytest.raises(InputError, match=r"manifest\.json: sha256"):
        read_document(tmp_path / "manifest.json", DOCUMENTS["bundle"])


def test_messages_are_short_whatever_was_got() -> None:
    """A key, a value and a name of 2 MB make no message of 2 MB."""
    long = "x" * 2_000_000
    for change in ({long: 1}, {"name": long}, {"memory_budget": long}, {"kind": [long]}, {"precision": long}):
        assert len(device_complaint(**change)) < 300
    assert len(complaint(json.dumps({"name": long, long: {long: 1}}))) < 300
    assert complaint("9" * 5000) == "numbers must have at most 1000 digits, got 5000."


def test_many_problems_are_one_sentence_in_no_time() -> None:
    """Hundreds of thousands of wrong entries are not all looked at; nor are keys of which one is given twice."""
    message = fleet_complaint(lambda data: data.update(devices=[{}] * 300_000))
    assert message == "devices[0]: name is missing. (1 more like this.)"
    message = fleet_complaint(lambda data: data.update(devices=[1] * 300_000))
    assert message == "devices[0]: must be an object, got 1."
    message = fleet_complaint(lambda data: data.update(links=[{"between": [1, 2]}] * 12_500))
    assert message == "links[0]: bandwidth_mbps is missing. (3 more like this.)"
    keys = [f'"{i}": 0' for i in range(100_000)]
    assert complaint(f'{{{",".join(keys[1:])}, "7": 1}}') == "key '7' is given twice in one object."
    # Not one of them is known, and each would be a problem of its own.
    assert complaint(f'{{{",".join(keys)}, "x": 1}}') == "an object must have at most 100,000 keys, got 100,001."


@pytest.mark.parametrize("name", DOCUMENTS)
def test_no_list_has_more_than_one_problem_entry(name: str) -> None:
    """In no document: each list of any length ends at its first wrong entry."""
    schemas: list[object] = [DOCUMENTS[name].__pydantic_core_schema__]
    lists = []
    while schemas:
        match schemas.pop():
            case {"type": "tuple" | "list" | "set" | "frozenset" as kind, **parts} if (
                kind != "tuple" or "variadic_item_index" in parts
            ):
                lists.append(parts.get("fail_fast"))
                schemas.extend(parts.values())
            case dict() as parts:
                schemas.extend(parts.values())
            case list() as parts:
                schemas.extend(parts)
    assert all(lists)


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    """Editors that write one write UTF-8; UTF-16 is named."""
    path = tmp_path / "devices.json"
    path.write_text(json.dumps(fleet_data()), encoding="utf-8-sig")
    assert read_document(path, Fleet).aggregator == "gateway"
    path.write_text(json.dumps(fleet_data()), encoding="utf-16")
    with pytest.raises(InputError, match=r"must be UTF-8 text, got UTF-16: save it as UTF-8\."):
        read_document(path, Fleet)


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("devices.yaml", b"name: pencil", r"not JSON \(Expecting value\), got a \.yaml file\."),
        ("devices.json.gz", b"\x1f\x8b\x08", r"must be text, got a gzip file: unpack it first\."),
    ],
)
def test_other_formats_are_named(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    """YAML and packed files are refused by what they are."""
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=reason):
        read_document(tmp_path / name, Fleet)


def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    """Devices and pipes may never end; standard input is not read."""
    for path, reason in (("/dev/zero", "a device or a pipe"), ("/dev/full", "a device or a pipe"), ("-", "standard")):
        with pytest.raises(InputError, match=reason):
            read_document(Path(path), Fleet)
    with pytest.raises(InputError, match="got one with a NUL in it"):
        read_document(tmp_path / "a\0b", Fleet)
    with pytest.raises(InputError, match="cannot be read"):
        read_document(tmp_path / ("x" * 5000), Fleet)


def test_a_folder_that_takes_no_file_is_noticed_first(tmp_path: Path) -> None:
    """Before any work: a folder in place of the file, a file in place of its folder, a device that is full."""
    check_can_write(tmp_path / "new" / "plan.json")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file" / "plan.json", Path("/proc/plan.json"), tmp_path / "a\0b"):
        with pytest.raises(InputError, match=r"must be a file, got a folder|cannot be written"):
            check_can_write(path)


def numbers_without_limit(schema: object, where: str) -> list[str]:
    """Return the places of a JSON Schema at which a number or a text of any size is allowed."""
    if isinstance(schema, list):
        return [place for part in schema for place in numbers_without_limit(part, where)]
    if not isinstance(schema, dict):
        return []
    limits = {"integer": {"maximum", "exclusiveMaximum"}, "number": {"maximum", "exclusiveMaximum"}}
    limits["string"] = {"maxLength", "pattern"}
    is_free = schema.get("type") in limits and not (limits[schema["type"]] | {"enum", "const"}) & set(schema)
    found = [where] if is_free else []
    for key in ("properties", "$defs"):
        for name, part in schema.get(key, {}).items():
            found += numbers_without_limit(part, f"{where}.{name}")
    for key in ("items", "additionalProperties", "prefixItems", "anyOf", "oneOf", "propertyNames"):
        found += numbers_without_limit(schema.get(key), f"{where}[]")
    return found


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_number_and_text_has_an_upper_limit(name: str) -> None:
    """No file makes anybody compute with 10^30, or print a text without end."""
    assert numbers_without_limit(json_schema(name), name) == []

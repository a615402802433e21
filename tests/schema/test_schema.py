"""Files: what is wrong with one is said in a sentence; what is right survives a round trip."""

import itertools
import json
import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any, NoReturn

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from planner.errors import InputError
from planner.schema import Fleet, Goal, Plan, Profile, read_document, sha256_of, to_json, write_document
from planner.schema.base import demanded_bytes, supplied_bytes, write_text
from planner.schema.fleet import Device
from planner.solver import solve
from tests.helpers.pencil import fleet_data, profile_data
from tests.helpers.random_instances import random_fleet, random_profile

Json = dict[str, Any]

FLEET, PROFILE = Path("devices.json"), Path("profile.json")


@pytest.fixture(autouse=True)
def _in_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def complaint(text: str | bytes, path: Path = FLEET) -> str:
    """Return what is said of a file with this content: one sentence that starts with its name."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(InputError, match=rf"\A{path.name}: [^\n]+[.?)]\Z") as caught:
        read_document(path, Fleet if path == FLEET else Profile)
    return str(caught.value).removeprefix(f"{path.name}: ")


def names_in(folder: Path) -> list[str]:
    """Return what lies in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


def fleet_complaint(change: Callable[[Json], object]) -> str:
    """Return what is said of the pencil fleet after a change."""
    data = fleet_data()
    change(data)
    return complaint(json.dumps(data))


def device_complaint(**changes: Any) -> str:
    """Return what is said of the fleet after a change to its second device."""
    return fleet_complaint(lambda data: data["devices"][1].update(changes))


def profile_complaint(change: Callable[[Json], object]) -> str:
    """Return what is said of the pencil profile after a change."""
    data = profile_data()
    change(data)
    return complaint(json.dumps(data), PROFILE)


def test_the_data_of_these_tests_is_right() -> None:
    """Unchanged, the pencil files are read without complaint."""
    FLEET.write_text(json.dumps(fleet_data()))
    PROFILE.write_text(json.dumps(profile_data()))
    assert read_document(FLEET, Fleet).aggregator == "gateway"
    assert read_document(PROFILE, Profile).model == "pencil"


def test_missing_file() -> None:
    """A name without a file behind it."""
    with pytest.raises(InputError, match=r"\Adevices\.json: no such file\.\Z"):
        read_document(FLEET, Fleet)


def test_a_folder() -> None:
    """A folder where a file must be."""
    FLEET.mkdir()
    with pytest.raises(InputError, match=r"\Adevices\.json: must be a file, got a folder\.\Z"):
        read_document(FLEET, Fleet)


def test_not_text() -> None:
    """Byte 3 cannot be UTF-8."""
    assert complaint(b'{"\xc3\xff') == "must be UTF-8 text, byte 2 is not."


def test_not_json() -> None:
    """A comma is missing on line 2, before column 2."""
    assert complaint('{"name": "x"\n "a": 1}') == "line 2, column 2: not JSON (Expecting ',' delimiter)."


def test_an_empty_file() -> None:
    """Nothing is not JSON either."""
    assert complaint("") == "line 1, column 1: not JSON (Expecting value)."


@pytest.mark.parametrize("text", ["[]", "3", "null", '"devices"', "[[1]]"])
def test_json_of_another_shape(text: str) -> None:
    """A file holds an object, whatever else may be JSON."""
    assert "must be an object" in complaint(text)


def test_endless_nesting() -> None:
    """A hundred thousand brackets are no fleet."""
    assert complaint("[" * 100_000 + "]" * 100_000) == "nested too deeply to be a fleet."


def test_half_of_a_character() -> None:
    """A lone surrogate is half of a character, though JSON can spell it."""
    assert complaint(r'{"name": "\ud800"}').startswith("not JSON (")


def test_duplicate_key() -> None:
    """JSON lets the last of two win; here that is a mistake."""
    assert complaint('{"name": "x", "name": "y"}') == "key 'name' is given twice in one object."


@pytest.mark.parametrize("constant", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_are_none(constant: str) -> None:
    """NaN and infinity are not JSON, though Python reads them."""
    text = json.dumps(fleet_data()).replace("2.5", constant)
    assert complaint(text) == f"numbers must be finite, got {constant}."


def test_numbers_too_large() -> None:
    """1e999 is infinite once it is a float."""
    text = json.dumps(fleet_data()).replace("2.5", "1e999")
    assert complaint(text).startswith("devices[1] 'near': active_power_w must be a finite number, got")


def test_misspelled_key() -> None:
    """The misspelling is named with the nearest key, not the key that is missing because of it."""

    def misspell(data: Json) -> None:
        data["devices"][1]["memory_budgte"] = data["devices"][1].pop("memory_budget")

    said = fleet_complaint(misspell)
    assert said.startswith("devices[1] 'near': unknown key 'memory_budgte'; did you mean 'memory_budget'?")


def test_unknown_key_like_no_other() -> None:
    """No known key is near enough to be suggested."""
    assert fleet_complaint(lambda data: data.update(xyzzy=1)) == "unknown key 'xyzzy'."


def test_missing_key() -> None:
    """The place and the key."""
    assert fleet_complaint(lambda data: data["devices"][2].pop("memory_budget")) == (
        "devices[2] 'far': memory_budget is missing."
    )


def test_negative_memory_budget() -> None:
    """The sentence of design.md, section 6."""
    data = fleet_data()
    data["devices"][1] |= {"name": "pi", "memory_budget": -1}
    assert complaint(json.dumps(data)) == "devices[1] 'pi': memory_budget must be > 0, got -1."


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"memory_budget": 0}, "memory_budget must be > 0, got 0."),
        ({"memory_budget": "0.5B"}, "memory_budget must be > 0, got"),
        ({"memory_budget": 1.5}, "memory_budget must be a valid integer, got 1.5."),
        ({"memory_budget": True}, "memory_budget must be a valid integer, got true."),
        ({"memory_budget": None}, "memory_budget must be a valid integer, got null."),
        ({"runtime_overhead": -5}, "runtime_overhead must be >= 0, got -5."),
        ({"macs_per_second": -1}, "macs_per_second must be >"),
        ({"macs_per_second": "fast"}, 'macs_per_second must be a valid number, got "fast".'),
        ({"count": 0}, "count must be >= 1, got 0."),
        ({"count": 10**9}, "count must be <= 10000, got 1000000000."),
        ({"precision": "int4"}, "precision must be 'float32', 'float16' or 'int8', got \"int4\"."),
        ({"kind": None}, "a device must have a kind or its own macs_per_second, got neither."),
    ],
)
def test_wrong_values_of_a_device(changes: Json, said: str) -> None:
    """The device by its name, the key, what must hold and what was got."""
    assert device_complaint(**changes).startswith(f"devices[1] 'near': {said}")


def test_a_name_that_is_empty() -> None:
    """A device must be called something."""
    assert device_complaint(name="").startswith("devices[1] '': name must have at least 1 character")


@pytest.mark.parametrize("size", ["512", "512 megs", "-1MiB", "1e3MB", "MiB", "1.MiB", "512mib", "", "½GiB"])
def test_bad_sizes(size: str) -> None:
    """A size is a plain number and a unit."""
    said = device_complaint(memory_budget=size)
    assert said == (
        f"devices[1] 'near': memory_budget must be a number of bytes or a size such as \"512MiB\", got {size!r}."
    )


def test_empty_fleet() -> None:
    """A fleet has at least one device."""
    assert fleet_complaint(lambda data: data.update(devices=[])).startswith("devices must have at least 1 ")


def test_duplicate_device_names() -> None:
    """Two devices of one name cannot be told apart."""
    said = device_complaint(name="far")
    assert said == "devices: names must differ, 'far' is used 2 times."


def test_duplicate_names_by_count() -> None:
    """`near` with count 2 makes `near-1`, which another device has as its name."""

    def clash(data: Json) -> None:
        data["devices"][1]["count"] = 2
        data["devices"][2]["name"] = "near-1"
        data["links"] = []

    assert fleet_complaint(clash) == "devices: names must differ, 'near-1' is used 2 times."


def test_unknown_aggregator() -> None:
    """The nearest device is named."""
    said = fleet_complaint(lambda data: data.update(aggregator="gatway"))
    assert said.startswith("aggregator must be one of the devices, got 'gatway'; did you mean 'gateway'?")


def test_an_aggregator_is_one_device() -> None:
    """`near` stands for two devices, of which neither is named."""

    def two(data: Json) -> None:
        data["devices"][1]["count"] = 2
        data["aggregator"] = "near"

    assert fleet_complaint(two).startswith("aggregator must be one of the devices, got 'near'")


def test_unknown_link_end() -> None:
    """The link, the end and the nearest device are named."""
    said = fleet_complaint(lambda data: data["links"][1].update(between=["near", "fur"]))
    assert said.startswith("links[1]: 'fur' is not a device; did you mean 'far'?")


def test_a_link_to_itself() -> None:
    """A link joins two devices."""
    said = fleet_complaint(lambda data: data["links"][0].update(between=["near", "near"]))
    assert said == "links[0]: must join two devices, got 'near' twice."


def test_another_schema_version() -> None:
    """This planner reads version 1."""
    assert fleet_complaint(lambda data: data.update(schema_version=2)) == "schema_version must be <= 1, got 2."


def test_the_schema_key_of_editors_is_allowed() -> None:
    """`$schema` is read, and neither kept nor hashed."""
    FLEET.write_text(json.dumps(fleet_data() | {"$schema": "https://example.org/devices.json"}))
    fleet = read_document(FLEET, Fleet)
    assert sha256_of(fleet) == sha256_of(Fleet.model_validate(fleet_data()))
    assert "$schema" not in to_json(fleet)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: p.update(classes=["a", "a"]), "classes: names must differ, 'a' is given twice."),
        # 0.3 becomes 0.4: the importance of class a sums to 1.1.
        (
            lambda p: p["importance"]["heads"][0].__setitem__(0, [0.4, 0.1]),
            "importance of class 'a' must sum to 1, got 1.1.",
        ),
        (
            lambda p: p["importance"]["heads"][1].__setitem__(0, [-0.1, 0.2]),
            "importance.heads[1][0]: must be >= 0, got -0.1.",
        ),
        (
            lambda p: p["importance"]["heads"].pop(),
            "importance.heads: must have one entry for each of 2 classes, got 1.",
        ),
        (
            lambda p: p["importance"]["channel_groups"][1].pop(),
            "importance.channel_groups[1]: must have one entry for each of 2 blocks, got 1.",
        ),
        (
            lambda p: p["importance"]["heads"][0][1].append(0.0),
            "importance.heads[0][1]: must have 2 numbers, got 3.",
        ),
        (
            lambda p: p["importance"]["channel_groups"][0][1].pop(),
            "importance.channel_groups[0][1]: must have 2 numbers, got 1.",
        ),
        (lambda p: p["channel_groups"].pop(), "channel_groups: must have one entry for each of 2 blocks, got 1."),
        (
            lambda p: p["channel_groups"].__setitem__(0, [[0, 1], []]),
            "channel_groups[0]: a group must hold a channel, got an empty one.",
        ),
        (
            lambda p: p["channel_groups"].__setitem__(0, [[0, 1], [1]]),
            "channel_groups[0]: a channel must be in one group, got one in two.",
        ),
        (
            lambda p: p["channel_groups"].__setitem__(1, [[0], [1, 3]]),
            "channel_groups[1]: channels must be 0 to 2, got 0 to 3.",
        ),
        (lambda p: p["widths"][1].update(embed_dim=8), "widths: entries must differ, got [8, 8]."),
        (lambda p: p["widths"][1].update(head_macs=[1]), "widths[1].head_macs: must have 2 numbers, got 1."),
        (lambda p: p["widths"][0].update(channel_params=[1, -2]), "widths[0].channel_params: must be >= 0, got -2."),
        (
            lambda p: p["widths"][0].update(embed_retention=[1.0]),
            "widths[0].embed_retention: must have 2 numbers, got 1.",
        ),
        (
            lambda p: p["widths"][1].update(embed_retention=[0.9, 1.5]),
            "widths[1].embed_retention: must be at most 1, got 1.5.",
        ),
        (lambda p: p["widths"][0].update(fixed_macs=-1), "widths[0]: fixed_macs must be >= 0, got -1."),
        (
            lambda p: p["latency"]["board"].append(p["latency"]["board"][0]),
            "latency['board']: rows must differ in embed_dim or precision, got [(8, 'float32'), (8, 'float32')].",
        ),
        (
            lambda p: p["recovery"][1].update(max_accuracy_drop=0.02),
            "recovery: entries must differ, got [0.02, 0.02].",
        ),
        (lambda p: p["recovery"][1].update(by_count=[0.2]), "recovery[1].by_count: must have 2 numbers, got 1."),
        (
            lambda p: p["recovery"][0].update(class_need=[1, 1, 1]),
            "recovery[0].class_need: must have 2 numbers, got 3.",
        ),
        (lambda p: p.update(num_tokens="17"), 'num_tokens must be a valid integer, got "17".'),
    ],
)
def test_wrong_profiles(change: Callable[[Json], object], said: str) -> None:
    """The place in the profile, what must hold and what was got."""
    assert profile_complaint(change) == said


def test_a_profile_without_classes() -> None:
    """A model that answers for nothing cannot be split."""
    assert profile_complaint(lambda data: data.update(classes=[])).startswith("classes must have at least 1 ")


def test_importance_may_be_off_by_rounding() -> None:
    """A sum of 1.0005 is a measurement, not a mistake."""
    data = profile_data()
    data["importance"]["heads"][0][0][0] += 0.0005
    PROFILE.write_text(json.dumps(data))
    assert read_document(PROFILE, Profile).importance.heads[0][0][0] == 0.3005


@pytest.mark.parametrize(
    ("size", "num_bytes"),
    [
        ("512MiB", 512 * 1024**2),
        ("1.5GB", 1_500_000_000),
        ("1.5GiB", 1_610_612_736),
        ("76 KB", 76_000),
        (" 3KiB ", 3072),
        ("2TB", 2 * 10**12),
        ("1TiB", 1024**4),
        ("7B", 7),
        (7, 7),
        (2e9, 2 * 10**9),
    ],
)
def test_sizes(size: object, num_bytes: int) -> None:
    """Decimal and binary units, or plain bytes."""
    assert supplied_bytes(size) == demanded_bytes(size) == num_bytes


def test_budget_is_rounded_down_and_overhead_up() -> None:
    """0.001 KiB is 1.024 bytes: 1 that the device grants, 2 that the runtime takes."""
    device = Device.model_validate(
        {"name": "pi", "macs_per_second": 1, "memory_budget": "0.001KiB", "runtime_overhead": "0.001KiB"}
    )
    assert (device.memory_budget, device.runtime_overhead) == (1, 2)


@settings(deadline=None)
@given(st.fractions(0, 10**6, max_denominator=1000).map(lambda f: f.limit_denominator(1000)))
def test_sizes_are_exact(amount: Fraction) -> None:
    """Any decimal amount of KiB is off by less than a byte, to the safe side."""
    text = f"{float(amount):.3f}"
    exact = Fraction(text) * 1024
    assert 0 <= exact - supplied_bytes(f"{text}KiB") < 1
    assert 0 <= demanded_bytes(f"{text}KiB") - exact < 1


def test_count_makes_numbered_devices() -> None:
    """`pi` with count 4 stands for pi-1 to pi-4; a link to `pi` is allowed, the devices are otherwise equal."""
    data = fleet_data()
    data["devices"][1] |= {"name": "pi", "count": 4}
    data["links"] = [{"between": ["gateway", "pi"], "bandwidth_mbps": 8, "latency_ms": 1}]
    fleet = Fleet.model_validate(data)
    assert [m.name for m in fleet.members] == ["gateway", "pi-1", "pi-2", "pi-3", "pi-4", "far"]
    assert fleet.member_names["pi"] == ("pi-1", "pi-2", "pi-3", "pi-4")
    assert {m.model_copy(update={"name": ""}) for m in fleet.members[1:5]} == {
        Device.model_validate(data["devices"][1] | {"name": "x", "count": 1}).model_copy(update={"name": ""})
    }


def test_what_is_read_cannot_be_changed() -> None:
    """A variation is a new object."""
    fleet = Fleet.model_validate(fleet_data())
    with pytest.raises(ValidationError, match="frozen"):
        fleet.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize("neither", [{"max_accuracy_drop": None, "min_retention": None}])
def test_a_goal_has_a_floor(neither: Json) -> None:
    """Without a drop and without a retention there is nothing to hold."""
    with pytest.raises(ValidationError, match="a goal must have max_accuracy_drop or min_retention, got neither"):
        Goal.model_validate(neither)


names = st.text(min_size=1, max_size=12)
positive = st.floats(1, 1e9)
devices = st.fixed_dictionaries(
    {"memory_budget": st.integers(1, 2**45), "macs_per_second": positive},
    optional={
        "kind": names,
        "count": st.integers(1, 5),
        "runtime_overhead": st.integers(0, 2**45),
        "active_power_w": positive,
        "precision": st.sampled_from(["float32", "float16", "int8"]),
    },
)


@st.composite
def fleets(draw: st.DrawFn) -> Fleet:
    """Draw a fleet of up to 5 devices, linked in a row, with names in any script."""
    # Without a hyphen, no name is that of another with a count.
    called = draw(st.lists(names.filter(lambda name: "-" not in name), min_size=1, max_size=5, unique=True))
    drawn = [draw(devices) | {"name": name} for name in called]
    drawn[0].pop("count", None)
    speed = st.fixed_dictionaries({"bandwidth_mbps": positive, "latency_ms": st.floats(0, 1e6)})
    links = [draw(speed) | {"between": pair} for pair in itertools.pairwise(called)]
    data = {"name": draw(names), "aggregator": called[0], "devices": drawn, "links": links}
    return Fleet.model_validate(data | {"default_link": draw(st.none() | speed)})


@settings(deadline=None)
@given(fleet=fleets())
def test_a_fleet_survives_its_file(fleet: Fleet) -> None:
    """Written and read again, it is equal and has the same hash."""
    write_document(FLEET, fleet)
    again = read_document(FLEET, Fleet)
    assert again == fleet
    assert sha256_of(again) == sha256_of(fleet)


@pytest.mark.parametrize("seed", range(5))
def test_profiles_and_plans_survive_their_files(seed: int) -> None:
    """Written and read again, they are equal and have the same hash."""
    profile = random_profile(seed, widths=(8, 4), kinds=("a",))
    plan = solve(profile, random_fleet(profile, seed, tightness=2.0))
    write_document(PROFILE, profile)
    write_document(Path("plan.json"), plan)
    assert read_document(PROFILE, Profile) == profile
    assert sha256_of(read_document(PROFILE, Profile)) == sha256_of(profile)
    assert read_document(Path("plan.json"), Plan) == plan


def test_the_hash_is_of_the_content() -> None:
    """Spelled-out defaults and sizes change nothing; a byte more of memory does."""
    data = fleet_data()
    same = fleet_data() | {"schema_version": 1, "default_link": None}
    same["devices"][1] |= {"memory_budget": "2KB", "precision": "float32"}
    more = fleet_data()
    more["devices"][1]["memory_budget"] += 1
    hashes = [sha256_of(Fleet.model_validate(d)) for d in (data, same, more)]
    assert hashes[0] == hashes[1] != hashes[2]


def test_write_text_writes_whole_files() -> None:
    """The file and its folder are made, and nothing else is left there; like any new file, others may read it."""
    path = Path("new/folder/plan.json")
    write_text(path, "Grüße\n")
    assert path.read_bytes() == "Grüße\n".encode()
    assert names_in(path.parent) == ["plan.json"]
    Path("plain").touch()
    assert path.stat().st_mode == Path("plain").stat().st_mode


@pytest.mark.parametrize(("module", "step"), [(os, "fsync"), (Path, "replace")])
def test_write_text_leaves_the_old_file_when_writing_fails(
    module: object, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full, whenever that is noticed: the old file is as it was, and alone."""

    def full(*args: object) -> NoReturn:
        raise OSError(28, "No space left on device")

    Path("plan.json").write_text("old")
    monkeypatch.setattr(module, step, full)
    with pytest.raises(
        InputError, match=r"\Aplan\.json: cannot be written \(No space left on device\): needs 3 bytes\.\Z"
    ):
        write_text(Path("plan.json"), "new")
    assert Path("plan.json").read_text() == "old"
    assert names_in(Path()) == ["plan.json"]


def test_write_text_leaves_the_old_file_when_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C is not swallowed, and leaves nothing behind."""

    def interrupt(*args: object) -> NoReturn:
        raise KeyboardInterrupt

    Path("plan.json").write_text("old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(Path("plan.json"), "new")
    assert Path("plan.json").read_text() == "old"
    assert names_in(Path()) == ["plan.json"]


@pytest.mark.parametrize("place", ["file/plan.json", "folder"])
def test_write_text_where_nothing_can_be_written(place: str) -> None:
    """A file is no folder, and a folder no file."""
    Path("file").write_text("a file")
    Path("folder").mkdir()
    with pytest.raises(InputError, match=rf"\A{place}: cannot be written \(.+\)\.\Z"):
        write_text(Path(place), "new")
    assert names_in(Path()) == ["file", "folder"]

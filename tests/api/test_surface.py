"""The Python interface: few names, loaded when used; plans that hold their profile and fleet."""

import ast
import copy
import html.parser
import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import planner
from planner.errors import InputError
from planner.report.frames import devices_frame
from planner.report.planned import Planned
from planner.rules.check import check
from planner.schema import Goal, Plan, sha256_of, to_json
from planner.units import format_time_us
from tests.helpers import pencil
from tests.helpers.common import ROOT, Json
from tests.helpers.goals import floored


@pytest.fixture(scope="module")
def plan() -> Planned:
    """The best plan of the pencil-and-paper fleet."""
    return planner.solve(pencil.profile(accuracy_model=pencil.ACCURACY_MODEL), pencil.fleet())


# --- the names ---


def test_every_public_name_exists_and_says_what_it_is() -> None:
    """Every public name exists, sorted, with a docstring."""
    assert planner.__all__ == sorted(planner.__all__)
    assert dir(planner) == planner.__all__
    for name in planner.__all__:
        thing = getattr(planner, name)
        assert name == "__version__" or (thing.__doc__ or "").strip(), name


def test_no_public_name_is_left_out() -> None:
    """Type checkers, the lazy import and __all__ have the same names, with all public functions among them."""
    tree = ast.parse(Path(planner.__file__).read_text())
    known = {a.name for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.level == 0 for a in n.names}
    assert known - {"import_module", "TYPE_CHECKING", "Any"} == set(planner.__all__)
    functions = ast.parse((ROOT / "planner" / "api.py").read_text()).body
    public = {n.name for n in functions if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")}
    assert public <= set(planner.__all__)


def test_an_unknown_name_is_an_attribute_error() -> None:
    """The lazy module raises the usual error for an unknown name."""
    with pytest.raises(AttributeError, match="module 'planner' has no attribute 'solv'"):
        planner.solv  # noqa: B018


def test_importing_costs_nothing() -> None:
    """`import planner` loads no third-party package; planning loads neither torch nor plotly."""
    code = (
        "import sys; before = set(sys.modules); import planner\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "assert new <= {'planner', *sys.stdlib_module_names}, new\n"
        "planner.solve, planner.what_if, planner.Fleet\n"
        "heavy = {'torch', 'fvcore', 'plotly', 'matplotlib', 'distributed'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


def test_files_are_read_by_str_or_path(tmp_path: Path) -> None:
    """Files may be named by a str or a Path."""
    path = tmp_path / "devices.json"
    path.write_text(to_json(pencil.fleet()))
    assert planner.load_fleet(str(path)) == planner.load_fleet(path) == pencil.fleet()
    assert planner.load_profile("digits-vit") == planner.load_profile(ROOT / "profiles" / "digits-vit.json")


# --- a plan that knows what it was made of ---


def test_a_planned_plan_is_a_plan(plan: Planned) -> None:
    """Its file is a plan's, it passes the check, and it equals the plan read from its file."""
    read = Plan.model_validate_json(to_json(plan), strict=True)
    assert "profile" not in json.loads(to_json(plan))
    assert sha256_of(read) == sha256_of(plan)
    assert check(plan, plan.profile, plan.fleet) == []
    assert plan == read
    assert read == plan
    assert plan != read.replace(solver=read.solver.replace(seed=7))
    assert plan != "a plan"


def test_copies_keep_profile_and_fleet(plan: Planned) -> None:
    """Pickled, copied or with a field replaced, a plan keeps its profile and fleet."""
    for other in (pickle.loads(pickle.dumps(plan)), copy.deepcopy(plan), plan.replace(status="feasible")):
        assert isinstance(other, Planned)
        assert (other.profile, other.fleet) == (plan.profile, plan.fleet)
    assert plan.replace(status="feasible").status == "feasible"


def test_a_plan_is_short_in_a_terminal(plan: Planned) -> None:
    """One line has status, objective, bound and gap."""
    assert str(plan).startswith(f"{plan.status.upper()} plan: latency {format_time_us(plan.latency_us)}, bound ")
    assert repr(plan) == f"<{plan}>"
    assert "\n" not in repr(plan) + str(plan)


def test_a_plan_comes_as_a_frame(plan: Planned) -> None:
    """The frame is the one of the reports."""
    assert plan.to_frame().equals(devices_frame(plan, plan.profile, plan.fleet))


def test_a_saved_plan_is_loaded_with_profile_and_fleet(plan: Planned, tmp_path: Path) -> None:
    """Saving and loading a plan loses nothing."""
    plan.save(tmp_path / "plan.json")
    loaded = planner.load_plan(tmp_path / "plan.json", plan.profile, plan.fleet)
    assert loaded == plan
    assert loaded.profile is plan.profile
    assert loaded.fleet is plan.fleet


def test_a_plan_of_another_fleet_is_not_loaded(plan: Planned, tmp_path: Path) -> None:
    """A plan is loaded only with the fleet it was made for."""
    plan.save(tmp_path / "plan.json")
    with pytest.raises(InputError, match=r"plan\.json: the plan is for another fleet: fleet_sha256 is [0-9a-f]{12}"):
        planner.load_plan(tmp_path / "plan.json", plan.profile, plan.fleet.replace(name="other"))


class _Read(html.parser.HTMLParser):
    """The cells of a table, by row, and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.rows and self.rows[-1]:
            self.rows[-1][-1] += data


def test_a_notebook_shows_a_plan_as_a_table(plan: Planned) -> None:
    """Headline, certificate, prediction, floors, and a row for each device with the frame's numbers."""
    read = _Read()
    read.feed(plan._repr_html_().replace("\n", ""))
    assert str(plan) in read.text
    assert plan.profile_sha256[:12] in read.text
    assert plan.predicted_accuracy is not None
    assert f"Predicted accuracy {plan.predicted_accuracy.accuracy:.1%} (" in read.text
    assert f"Bound at retention floors of {plan.retention_floor:.2f}; no plan within the drop takes under " in read.text
    assert read.rows[0] == ["device", "kind", "classes", "heads", "channels", "memory / budget", "latency"]
    frame = plan.to_frame()
    assert [row[0] for row in read.rows[1:]] == list(frame.index)
    for cells, (_, row) in zip(read.rows[1:], frame.iterrows(), strict=True):
        assert cells[2] == (" ".join(row["classes"]) or "idle")
        if row["classes"]:
            assert cells[3] == f"{row['heads']:.0f}/4"
            assert cells[6].startswith(format_time_us(row["latency_us"]))
    assert ["the bottleneck" in row[-1] for row in read.rows[1:]].count(True) == 1


HOSTILE = ["<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "{{ 7*7 }}", "🪴" * 20, "x" * 200]


@pytest.mark.parametrize("name", HOSTILE, ids=["script", "image", "template", "emoji", "long"])
def test_names_are_shown_and_never_run(name: str) -> None:
    """Names of classes, devices and fleets stay text."""
    profile = pencil.profile(classes=[name, "b"], accuracy_model=pencil.ACCURACY_MODEL)
    devices = [d | {"name": name} if d["name"] == "gateway" else d for d in pencil.fleet_data()["devices"]]
    link = {"bandwidth_mbps": 8, "latency_ms": 1}
    fleet = pencil.fleet(name=name, aggregator=name, devices=devices, links=[], default_link=link)
    read = _Read()
    read.feed(planner.solve(profile, fleet)._repr_html_())
    assert set(read.tags) <= {"div", "p", "strong", "br", "table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert name in [row[0] for row in read.rows]
    assert name in " ".join(row[2] for row in read.rows)


def test_a_picture_of_no_name_is_refused(plan: Planned) -> None:
    """The names of the pictures are listed, the nearest is named."""
    with pytest.raises(InputError, match=r"one of timeline, .*, got 'timelin'; did you mean 'timeline'"):
        plan.picture("timelin")


# --- solving ---


def test_solving_here_is_solving() -> None:
    """The plan is the solver's, and options are passed on."""
    from planner.solver import SolveOptions, solve

    goal = Goal(min_retention=0.5, method="random-equal")
    ours = planner.solve(pencil.profile(), pencil.fleet(), goal, seed=3)
    theirs = solve(pencil.profile(), pencil.fleet(), goal, SolveOptions(seed=3))
    assert ours.solver.seed == 3
    assert ours.assignments == theirs.assignments


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("digits-vt", pencil.fleet()), {}, "`profile` must be a .json file or one of .*; did you mean 'digits-vit'"),
        ((3, pencil.fleet()), {}, r"^`profile` must be a Profile \(planner.load_profile reads one\), got int '3'\.$"),
        (
            (pencil.profile(), "devices.json"),
            {},
            r"^`fleet` must be a Fleet \(planner.load_fleet .*got str 'devices.json'",
        ),
        ((pencil.profile(), pencil.fleet(), {"survive": 1}), {}, r"^`goal` must be a Goal .*got dict"),
        ((pencil.profile(), pencil.fleet()), {"start": "plan.json"}, r"^`start` must be a Plan .*got str 'plan.json'"),
        ((pencil.profile(), pencil.fleet()), {"time_limit_s": -1}, r"^`time_limit_s` must be >= 0, got -1\.$"),
    ],
)
def test_wrong_arguments_are_one_sentence(arguments: tuple[Any, ...], options: Json, message: str) -> None:
    """The message says what must be given, what was, and where to get it."""
    with pytest.raises(InputError, match=message):
        planner.solve(*arguments, **options)


def test_diff_is_what_moves(plan: Planned) -> None:
    """Nothing moves to the same plan; to a plan without a device, its classes move."""
    assert planner.diff(plan, plan).empty
    lost = plan.bottleneck.device
    other = planner.solve(plan.profile, plan.fleet, Goal(leave_out=(lost,)))
    moves = planner.diff(plan, other)
    assert {*moves["loses"][lost]} == set(plan.bottleneck.classes)
    assert moves.loc[lost, "bytes_to_send"] == 0


def test_plans_of_different_profiles_are_not_compared(plan: Planned) -> None:
    """Plans of different profiles have no common units, so comparing them is an error."""
    other = planner.solve(pencil.profile(model="other"), plan.fleet, floored())
    with pytest.raises(InputError, match=r"plans must be of one profile, got [0-9a-f]{12}\.\.\. and [0-9a-f]{12}"):
        planner.diff(plan, other)


# --- showing ---


def test_a_plan_comes_as_a_graph(plan: Planned) -> None:
    """Devices are nodes, with the plan's times."""
    graph = plan.to_graph()
    assert set(graph.nodes) == {"gateway", "near", "far"}
    assert graph.nodes[plan.bottleneck.device]["is_bottleneck"]
    assert graph.nodes[plan.bottleneck.device]["compute_us"] == plan.bottleneck.compute_us


@pytest.mark.parametrize("name", ["timeline", "kept", "memory", "classes", "fleet_graph"])
def test_a_plan_draws_itself(plan: Planned, name: str) -> None:
    """Each picture has a name; it is the one of the report."""
    assert plan.picture(name).layout.meta["title"]


def test_a_plan_comes_as_a_page(plan: Planned) -> None:
    """The page is complete and has the given rows."""
    page = plan.to_html(without=planner.what_if(plan, drop_each=True), fronts=[planner.pareto(plan, "accuracy")])
    assert page.startswith("<!doctype html>") or page.startswith("<!DOCTYPE html>")
    assert "without far" in page
    assert plan.fleet_sha256 in page

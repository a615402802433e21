"""The pages under docs/ are true: links and commands work, JSON is valid, numbers agree."""

import json
import re
from functools import lru_cache
from pathlib import Path

import pytest

from planner.library import folder, load_fleet, load_profile
from planner.network.naming_schemes import check_map
from planner.network.vit import Shape, VisionTransformer
from planner.schema import Fleet, ModelCard
from planner.solver import solve
from tests.helpers.command_line import planner
from tests.helpers.commands import lines_of, mentions, parse, unknown_flags
from tests.helpers.common import ROOT

PAGES = sorted(
    [*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"], key=lambda path: path.name
)
# Cheap enough to be run.
CHEAP = re.compile(r"planner (schema |solve .*examples/by-hand/)")

each_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.name)


@lru_cache
def text_of(path: Path) -> str:
    """Return a page."""
    return path.read_text(encoding="utf-8")


@lru_cache
def anchors(path: Path) -> frozenset[str]:
    """Return the anchors that GitHub gives to a page's headings."""
    outside = re.sub(r"^```.*?^```", "", text_of(path), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", outside, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles)


@each_page
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link leads to a file of the repository, and every anchor to a heading."""
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(path)):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.is_file(), f"{path.name}: {target}"
        assert there.is_relative_to(ROOT)
        assert not anchor or anchor in anchors(there), f"{path.name}: {target}"


@each_page
def test_commands_parse(path: Path) -> None:
    """Every command line in a shell block is valid."""
    for line in lines_of(text_of(path)):
        parse(line)


@each_page
def test_mentioned_flags_exist(path: Path) -> None:
    """A flag mentioned with a command belongs to that command."""
    for line in mentions(text_of(path)):
        assert unknown_flags(line) == set(), f"{path.name}: {line}"


def test_cheap_commands_run(tmp_path: Path) -> None:
    """Quick commands of the pages run in a folder that has only the examples."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    lines = {line.partition(" > ")[0] for path in PAGES for line in lines_of(text_of(path)) if CHEAP.match(line)}
    assert len(lines) == 2
    for line in lines:
        result = planner(*line.split()[1:], cwd=tmp_path)
        assert result.returncode == 0, f"{line}: {result.stderr}"


def test_json_is_valid() -> None:
    """Each JSON block outside docs/formats.md is a fleet, a map of names, or keys of a card."""
    card = json.loads((folder("models") / "digits-vit" / "card.json").read_text())
    for path in PAGES:
        if path.name == "formats.md":
            continue
        for block in re.findall(r"```json\n(.*?)```", text_of(path), re.DOTALL):
            if "devices" in json.loads(block):
                Fleet.model_validate_json(block, strict=True)
            elif "cls_token" in json.loads(block):
                shape = Shape(4, 2, 3, 2, embed_dim=4, head_dim=2, num_heads=(2, 2), hidden_dim=(3, 3))
                check_map(json.loads(block), VisionTransformer(shape).state_dict())
            else:
                keys = json.loads(block)
                card["architecture"]["in_channels"] = len(keys["preprocessing"]["mean"])
                ModelCard.model_validate_json(json.dumps(card | keys), strict=True)


def test_the_own_fleet_of_getting_started(tmp_path: Path) -> None:
    """The fleet built in getting-started.md has the latency shown there."""
    text = text_of(ROOT / "docs" / "getting-started.md")
    (block,) = re.findall(r"```json\n(.*?)```", text, re.DOTALL)
    (tmp_path / "devices.json").write_text(block)
    plan = solve(load_profile("digits-vit"), load_fleet(tmp_path / "devices.json"))
    shown = f"latency {plan.latency_us / 1000:.1f} ms, bound {plan.bound_us / 1000:.1f} ms, gap {plan.gap:.1%}"
    assert shown in text.partition("planner solve --out plan.json\n")[2]


def test_each_page_is_found() -> None:
    """Getting started leads to every other page."""
    linked = set(re.findall(r"\]\(([\w-]+\.md)", text_of(ROOT / "docs" / "getting-started.md")))
    assert {path.name for path in PAGES} - {"README.md", "CONTRIBUTING.md", "getting-started.md"} <= linked

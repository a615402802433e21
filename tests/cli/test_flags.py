"""Flags in messages: the library speaks of settings, the command line shows its flags in their place."""

import json
from collections import defaultdict
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import pytest

from planner.cli.app import as_shown
from planner.cli.flags import with_flags
from planner.cli.options import AgainstName, MethodName, ObjectiveName
from planner.errors import InputError, setting
from planner.schema import Goal, Method, Objective
from planner.solver import solve
from planner.whatif import Against
from tests.helpers.command_line import planner, planner_here, refused
from tests.helpers.commands import commands
from tests.helpers.common import DEVICES
from tests.helpers.what_if_instances import files, instance, rows_of


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        (f"give {setting('jobs')} less", "give --jobs less"),
        (
            f"{setting('pin', '8=vent-1')} and {setting('max_accuracy_drop', 0.1)}.",
            "--pin 8=vent-1 and --max-accuracy-drop 0.1.",
        ),
        (f"Raise {setting('time_limit_s')}.", "Raise --time-limit."),
        (f"{setting('add_each', 'a, b')}: no", "--add-each a, b: no"),
        (f"{setting('drop', 'a`b')}: no", "--drop a`b: no"),
        (f"{setting('drop', '')}: must be", "--drop : must be"),
        ("start one by `dask scheduler`, or `dask worker x`", "start one by `dask scheduler`, or `dask worker x`"),
        (f"{setting('no_flag', 3)} and {setting('no_flag')}", "`no_flag=3` and `no_flag`"),
    ],
)
def test_settings_become_flags(message: str, shown: str) -> None:
    """Settings with and without values become flags; other text in backticks stays as it is."""
    assert as_shown(message) == shown


def test_without_flags_a_message_stays() -> None:
    """A command without options changes nothing."""
    assert with_flags(f"raise {setting('survive', 2)}", {}) == "raise `survive=2`"


def test_a_setting_has_one_flag() -> None:
    """All commands have the same flag for the same parameter, so that one table serves them all."""
    flags = defaultdict(set)
    for _, command in commands():
        for parameter in command.params:
            if parameter.opts[0].startswith("-"):
                flags[parameter.name].add(next(flag for flag in parameter.opts if flag.startswith("--")))
    assert {name: found for name, found in flags.items() if len(found) > 1} == {}


def test_every_key_of_a_goal_is_a_flag() -> None:
    """Each key of a goal that a message may name has the flag of the same name."""
    for key in Goal.model_fields:
        assert as_shown(setting(key)) == f"--{key.replace('_', '-')}"


def test_a_message_has_settings_in_python_and_flags_on_the_command_line() -> None:
    """One wrong goal, refused in both worlds."""
    from planner.library import load_fleet, load_profile

    with pytest.raises(InputError, match=r"^`pin`: 'gatewy' is not a device of the fleet; did you mean 'gateway'\?$"):
        solve(load_profile("digits-vit"), load_fleet(DEVICES), Goal(pin={"8": ("gatewy",)}))
    refused(
        planner_here("solve", "--devices", DEVICES, "--pin", "8=gatewy"), "--pin: 'gatewy' is not a device of the fleet"
    )


def test_reasons_have_settings_in_python_and_flags_on_the_command_line(tmp_path: Path) -> None:
    """The reason of a row names the demand that cannot be met: in tables, in JSON and in files."""
    profile, fleet = instance(2)
    reason = rows_of(profile, fleet, sweep=["survive=7"])[1].reason
    assert reason is not None
    assert "`survive=7`" in reason
    assert "--" not in reason
    out = tmp_path / "rows.json"
    result = planner("what-if", *files(tmp_path, profile, fleet), "--sweep", "survive=7", "--jobs", "1", "--out", out)
    assert "--survive 7" in result.stdout
    assert json.loads(out.read_text())[1]["reason"] == as_shown(reason)
    assert "`" not in as_shown(reason)


@pytest.mark.parametrize(
    ("option", "schema"), [(MethodName, Method), (ObjectiveName, Objective), (AgainstName, Against)]
)
def test_choices_of_a_flag_are_those_of_the_schema(option: type[Enum], schema: Any) -> None:
    """They are written twice, since help must not import the schema."""
    assert tuple(choice.value for choice in option) == get_args(schema)

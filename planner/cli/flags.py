"""Flags in place of settings: a message of the library says `pin=8=vent-1`, the command line shows --pin 8=vent-1."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

# A setting as `planner.errors.setting` writes it. Its last backtick has no letter behind it, one within a value may.
_SETTING = re.compile(r"`([a-z_]+)(?:=(.*?))?`(?!\w)", re.DOTALL)


def flags_of(command: Any) -> dict[str, str]:
    """Return the flag of each option, by the name of its parameter, of a command or of a group and all its commands."""
    return {name: flag for part in _with_subcommands(command) for name, flag in _options(part)}


def with_flags(text: str, flags: Mapping[str, str]) -> str:
    """Return a message with flags in place of its settings; settings without a flag stay as they are."""

    def shown(found: re.Match[str]) -> str:
        name, value = found.groups()
        # The name `time_limit_s` has its unit, which --time-limit has in its help.
        flag = flags.get(name) or flags.get(name.removesuffix("_s"))
        if flag is None:
            return found[0]
        return flag if value is None else f"{flag} {value}"

    return _SETTING.sub(shown, text)


def _with_subcommands(command: Any) -> Iterator[Any]:
    yield command
    for subcommand in getattr(command, "commands", {}).values():
        yield from _with_subcommands(subcommand)


def _options(command: Any) -> Iterator[tuple[str, str]]:
    for parameter in command.params:
        for flag in parameter.opts:
            if flag.startswith("--"):
                yield parameter.name, flag
                break

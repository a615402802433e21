"""The files that have a schema, and the JSON Schema of each, for editors (draft 2020-12)."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from planner.schema.base import SCHEMA_VERSION, Document
from planner.schema.bundle import Manifest
from planner.schema.card import ModelCard
from planner.schema.evaluation import Evaluation
from planner.schema.fleet import DeviceKind, Fleet
from planner.schema.goal import GoalFile
from planner.schema.plan import Plan
from planner.schema.probe import ProbeManifest, ProbeResult
from planner.schema.profile import Profile
from planner.schema.scenario import ScenarioFile

_DIALECT = "https://json-schema.org/draft/2020-12/schema"


@dataclass(frozen=True)
class FileFormat:
    """A kind of file: what it holds, what it is usually called, who writes and who reads it."""

    model: type[Document]
    file: str
    use: str


FORMATS = {
    "devices": FileFormat(Fleet, "devices.json", "You write it; `planner solve --devices` and most others read it."),
    "goal": FileFormat(GoalFile, "goal.json", "You write it; `planner solve --goal` reads it, and flags win over it."),
    "scenarios": FileFormat(ScenarioFile, "scenarios.json", "You write it; `planner what-if --scenarios` reads it."),
    "plan": FileFormat(Plan, "plan.json", "`planner solve --out` writes it; `check`, `show` and `execute` read it."),
    "profile": FileFormat(Profile, "profile.json", "`planner profile` writes it; `--profile` reads it."),
    "card": FileFormat(
        ModelCard, "card.json", "`planner import` writes it, you add the data; `profile` and `execute` read it."
    ),
    "kind": FileFormat(DeviceKind, "profiles/devices/KIND.json", "Comes along; a device's `kind` names it."),
    "bundle": FileFormat(
        Manifest, "bundle/manifest.json", "`planner execute` writes it; `planner evaluate` checks all files by it."
    ),
    "evaluation": FileFormat(Evaluation, "evaluation.json", "`planner evaluate --json` prints it."),
    "probes": FileFormat(
        ProbeManifest, "probes/manifest.json", "`planner probe make` writes it; probe.py reads it on the device."
    ),
    "timings": FileFormat(ProbeResult, "latency.json", "probe.py writes it there; `planner probe add` reads it."),
}


class _ForPeople(GenerateJsonSchema):
    """Without a title for each key: editors would show it beside the key's own name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema(name: str, kinds: Iterable[str] = ()) -> dict[str, Any]:
    """Return the JSON Schema of a file format.

    Args:
        name: One of `FORMATS`.
        kinds: Device kinds to suggest; others stay allowed, since a profile may know more.
    """
    known = FORMATS[name]
    schema: dict[str, Any] = _unwrapped(known.model.model_json_schema(schema_generator=_ForPeople))
    suggested = sorted(kinds)
    device = schema.get("$defs", {}).get("Device")
    if device and suggested:
        kind = device["properties"]["kind"]
        kind["anyOf"] = [{"type": "string", "enum": suggested}, *kind["anyOf"]]
    head = {"$schema": _DIALECT, "$id": f"urn:vit-planner:{name}:{SCHEMA_VERSION}"}
    return head | schema | {"title": known.file}


def _unwrapped(value: Any) -> Any:
    """Return a schema whose descriptions have a line for each paragraph."""
    if isinstance(value, list):
        return [_unwrapped(entry) for entry in value]
    if not isinstance(value, dict):
        return value
    return {key: _paragraphs(entry) if _is_text(key, entry) else _unwrapped(entry) for key, entry in value.items()}


def _is_text(key: str, entry: Any) -> bool:
    # A property may be called "description", too: its schema is no text.
    return key == "description" and isinstance(entry, str)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))

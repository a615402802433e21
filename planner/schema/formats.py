"""Classes of the file formats, and the JSON Schema of each, for editors (draft 2020-12)."""

from collections.abc import Iterable
from typing import Any

from pydantic.json_schema import GenerateJsonSchema

from planner.file_formats import FILE_FORMATS
from planner.schema.base import SCHEMA_VERSION, Document
from planner.schema.bundle import Manifest
from planner.schema.card import ModelCard
from planner.schema.deployment import AggregatorManifest, DeviceManifest
from planner.schema.evaluation import Evaluation
from planner.schema.fleet import DeviceKind, Fleet
from planner.schema.goal import GoalFile
from planner.schema.plan import Plan
from planner.schema.probe import ProbeManifest, ProbeResult
from planner.schema.profile import Profile
from planner.schema.rehearsal import Rehearsal
from planner.schema.scenario import ScenarioFile

_DIALECT = "https://json-schema.org/draft/2020-12/schema"

_CLASSES: tuple[type[Document], ...] = (
    AggregatorManifest,
    DeviceKind,
    DeviceManifest,
    Evaluation,
    Fleet,
    GoalFile,
    Manifest,
    ModelCard,
    Plan,
    ProbeManifest,
    ProbeResult,
    Profile,
    Rehearsal,
    ScenarioFile,
)
_BY_NAME = {document.__name__: document for document in _CLASSES}

# The class that each file format is read into.
DOCUMENTS = {name: _BY_NAME[known.document] for name, known in FILE_FORMATS.items()}


class _Untitled(GenerateJsonSchema):
    """Generator of schemas without a title for each key: editors would show it beside the key's own name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        return False


def json_schema(name: str, kinds: Iterable[str] = ()) -> dict[str, Any]:
    """Return the JSON Schema of a file format.

    Args:
        name: One of `FILE_FORMATS`.
        kinds: Device kinds to suggest; others stay allowed, since a profile may know more.
    """
    schema: dict[str, Any] = _unwrapped(DOCUMENTS[name].model_json_schema(schema_generator=_Untitled))
    suggested = sorted(kinds)
    device = schema.get("$defs", {}).get("Device")
    if device and suggested:
        kind = device["properties"]["kind"]
        kind["anyOf"] = [{"type": "string", "enum": suggested}, *kind["anyOf"]]
    head = {"$schema": _DIALECT, "$id": f"urn:vit-planner:{name}:{SCHEMA_VERSION}"}
    return head | schema | {"title": FILE_FORMATS[name].file}


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

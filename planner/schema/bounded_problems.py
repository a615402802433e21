"""Limits on the problems that validation may find: a file of a megabyte can hold hundreds of thousands of wrong values.

Each problem takes a kilobyte, and only the first is shown.
"""

from typing import Any

# Of a list of objects, each of which may have problems of its own.
MAX_OBJECTS = 100_000


def bound_problems(schema: Any) -> None:
    """Let lists of values end at their first problem, and lists of objects at a length, anywhere in a core schema."""
    if isinstance(schema, list):
        for part in schema:
            bound_problems(part)
    if not isinstance(schema, dict):
        return
    if schema.get("type") == "tuple" and "variadic_item_index" in schema:
        if schema["items_schema"][0].get("type") in ("model", "definition-ref", "definitions"):
            schema.setdefault("max_length", MAX_OBJECTS)
        else:
            schema["fail_fast"] = True
    if schema.get("type") == "dict":
        schema["fail_fast"] = True
    for part in schema.values():
        bound_problems(part)

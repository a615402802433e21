"""A limit on the problems that validation finds: a file of a megabyte can hold hundreds of thousands of wrong values.

Each problem takes a kilobyte, and only the first is shown.
"""

from typing import Any


def bound_problems(schema: Any) -> None:
    """Let lists and dictionaries end at their first wrong entry, anywhere in a core schema."""
    if isinstance(schema, list):
        for part in schema:
            bound_problems(part)
    if not isinstance(schema, dict):
        return
    # Pydantic's limit on a list's length does not help: it counts valid entries alone.
    if schema.get("type") == "dict" or (schema.get("type") == "tuple" and "variadic_item_index" in schema):
        schema["fail_fast"] = True
    for part in schema.values():
        bound_problems(part)

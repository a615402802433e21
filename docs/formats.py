"""Writes docs/formats.md from the schemas: `make docs`.

What is said there of a key is the text beneath it in planner/schema/, which editors show, too.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from planner.file_formats import FILE_FORMATS
from planner.schema import json_schema
from planner.schema.base import write_text

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "formats.md"

Schema = dict[str, Any]

HEAD = """\
# The files

All files are JSON in UTF-8. This page is made from the planner's own schemas (`make docs`), so it is what the
planner accepts. `planner schema devices` prints the same as a JSON Schema; with it, an editor completes keys and
marks mistakes:

```sh
planner schema devices > devices.schema.json
```

and in the file, as its first key: `"$schema": "devices.schema.json"`.

Rules for all of them:

- An unknown key is an error, which names the file, the place in it and the nearest known key. So is a key that is
  given twice, and a number that is not finite.
- A *size* is a number of bytes or a string with a unit: `"512MiB"`, `"1.5GB"`, `"48KiB"`; B, KB, MB, GB, TB are powers
  of 1000, KiB, MiB, GiB, TiB of 1024. Budgets are rounded down to bytes, overheads up.
- A *name* has 1 to 200 characters, any of Unicode.
- *Required* keys have no default. Where the default is `null`, the key may be left out or null.
- A file is written whole or not at all.
- Units: us is a microsecond; 1 MAC is one multiply-accumulate, 2 FLOPs.
- The hash of a profile or a fleet is of its content (SHA-256; keys sorted, defaults filled in): layout does not matter.

| file | format | who writes it, who reads it |
|---|---|---|
"""

# Examples: files of the repository, or what is too small to be one.
FILES = {
    "devices": "examples/devices.json",
    "profile": "examples/by-hand/profile.json",
    "plan": "examples/by-hand/plan.json",
    "card": "models/digits-vit/card.json",
    "kind": "profiles/devices/rp2350.json",
}
_HASH = "97ff1c599d32ad302a845035384a37b4df454d682c53a467e650a6d63bd0ee29"
_MANIFEST = {
    "model": "digits-vit",
    "num_tokens": 17,
    "depth": 4,
    "num_heads": 4,
    "head_dim": 16,
    "hidden_dim": 256,
    "widths": [64, 48],
    "input_shape": [1, 8, 8],
    "networks": [
        {
            "name": "n01",
            "embed_dim": 48,
            "num_heads": [2, 1, 0, 4],
            "hidden_dim": [64, 0, 128, 256],
            "files": {"float32": {"name": "n01-float32.onnx", "num_bytes": 271000}},
        }
    ],
}
_INPUT = {
    "shape": [3, 224, 224],
    "dtype": "uint8",
    "preprocessing": {"scale": 0.00392156862745098, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "resize": 256},
}
_TIMES = {"p10": 57_010.0, "p50": 57_080.0, "p99": 57_900.0}
_STEP = {"predicted_us": 57_000, "measured_us": _TIMES, "held_us": 57_000}
_REHEARSED = {
    "device": "pi-1",
    "num_replies": 1000,
    "send": _STEP,
    "compute": _STEP,
    "returned": _STEP,
    "latency": _STEP,
    "network_us": _TIMES,
    "planned_memory_bytes": 98_000_000,
    "planned_runtime_bytes": 83_886_080,
    "peak_bytes": 71_000_000,
    "interpreter_bytes": 55_000_000,
}
_PLANNED = {"send_us": 12944, "compute_us": 57000, "return_us": 1123, "memory_bytes": 98_000_000}
SMALL: dict[str, Schema] = {
    "goal": {
        "max_accuracy_drop": 0.05,
        "max_latency_ms": 20.0,
        "survive": 1,
        "pin": {"8": ["gateway"]},
        "forbid": {"3": ["pump", "vent"]},
        "apart": [["1", "7"]],
    },
    "scenarios": {
        "scenarios": [
            {"name": "pump lost", "drop": ["pump"]},
            {"name": "two more", "add": {"esp32-s3": 2}, "set": {"vent.memory_budget": "512KiB"}},
            {"name": "slow air", "scale": {"bandwidth": 0.5}, "goal": {"max_accuracy_drop": 0.05}},
        ]
    },
    "rehearsal": {
        "fleet": "warehouse",
        "bundle_sha256": _HASH,
        "plan_sha256": _HASH,
        "machine": "x86_64, Python 3.11.7, ONNX Runtime 1.31.1",
        "links": "held",
        "compute": "planned",
        "num_images": 1000,
        "deadline_us": 1_200_000,
        "devices": [_REHEARSED],
        "fusion": {"predicted_us": 20, "measured_us": {"p10": 18.0, "p50": 21.0, "p99": 60.0}},
        "latency": _STEP,
        "accuracy": 0.9,
        "bundle_accuracy": 0.9,
        "exported_accuracy": 0.9,
        "num_evaluated": 1000,
        "num_differing": 0,
        "outages": [
            {"device": "pi-1", "killed_before": 100, "restarted_before": 150, "num_without": 61, "back_s": 0.4}
        ],
    },
    "bundle": {
        "model": "digits-vit",
        "recipe": "default",
        "epochs": 20,
        "seed": 0,
        "teacher_sha256": _HASH,
        "devices": {"gateway": "devices/00-gateway.safetensors"},
        "sha256": {"plan.json": _HASH, "devices/00-gateway.safetensors": _HASH},
    },
    "deployment": {
        "bundle": _HASH,
        "aggregator": "gateway",
        "classes": ["cat", "dog"],
        "input": _INPUT,
        "devices": [
            {
                "name": "pi-1",
                "folder": "00-pi-1",
                "features": 192,
                "planned": _PLANNED,
                "certificate": "00.pem",
                "manifest_sha256": _HASH,
            }
        ],
        "fusion_hidden": 128,
        "fusion_us": 41,
        "latency_us": 71108,
        "accuracy": {"num_images": 270, "bundle": 0.978, "exported": 0.978},
        "sha256": {"fusion.npz": _HASH},
    },
    "device-folder": {
        "bundle": _HASH,
        "device": "pi-1",
        "input": _INPUT,
        "features": 192,
        "planned": _PLANNED,
        "sha256": {"model.onnx": _HASH, "model.onnx.data": _HASH, "worker.pyz": _HASH, "expected.npz": _HASH},
    },
    "evaluation": {
        "num_images": 270,
        "num_calibration_images": 270,
        "whole_accuracy": 0.985,
        "fused_accuracy": 0.978,
        "whole_by_class": {"cat": 1.0, "dog": 0.97},
        "fused_by_class": {"cat": 1.0, "dog": 0.956},
        "without_device": {"gateway": 0.97, "board": 0.95},
        "without_device_by_class": {"gateway": {"cat": 0.98, "dog": 0.96}, "board": {"cat": 1.0, "dog": 0.9}},
        "whole": {"params": 202186, "macs": 3540000},
        "devices": {"gateway": {"params": 12090, "macs": 240000}, "board": {"params": 11290, "macs": 220000}},
    },
    "probes": _MANIFEST,
    "timings": {
        "manifest_sha256": _HASH,
        "device": {
            "python": "3.11.2",
            "numpy": "2.2.0",
            "onnxruntime": "1.20.1",
            "platform": "Linux-6.6-aarch64",
            "machine": "aarch64",
            "cpu": "Cortex-A76",
            "cores": 4,
        },
        "complete": True,
        "peak_memory_bytes": 81_000_000,
        "manifest": _MANIFEST,
        "timings": [
            {
                "network": "n01",
                "precision": "float32",
                "threads": 1,
                "median_us": 812.5,
                "spread": 0.004,
                "runs": 150,
                "rounds_us": [812.5, 810.1, 815.0],
            }
        ],
    },
}


def page() -> str:
    """Return the page."""
    rows = [f"| [{f.file}](#{anchor(f.file)}) | `{name}` | {f.use} |\n" for name, f in FILE_FORMATS.items()]
    told: dict[str, str] = {}
    return HEAD + "".join(rows) + "".join(section(name, told) for name in FILE_FORMATS)


def section(name: str, told: dict[str, str]) -> str:
    """Return what is said of one file.

    Args:
        name: The format's.
        told: Where each object was described already, as a link; this file's are added.
    """
    known, schema = FILE_FORMATS[name], json_schema(name)
    parts = schema.get("$defs", {})
    mine = [part for part in parts if part not in told]
    told |= {part: f"[{part}](#{anchor(heading(part, name))})" for part in mine}
    told[known.document.removesuffix("File")] = f"[{known.file}](#{anchor(known.file)})"
    lines = [f"\n## {known.file}\n", f"{schema['description']}\n", f"{known.use}\n", *table(schema, told)]
    for part in mine:
        lines += [f"\n### {heading(part, name)}\n", f"{parts[part]['description']}\n", *table(parts[part], told)]
    return "\n".join([*lines, f"\nAn example{source(name)}:\n", "```json", example(name), "```", ""])


def heading(part: str, name: str) -> str:
    """Return an object's heading, which says whose it is."""
    return f"{part} (in {FILE_FORMATS[name].file.rpartition('/')[2]})"


def anchor(title: str) -> str:
    """Return the anchor that GitHub makes of a heading."""
    return re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-")


def table(schema: Schema, told: dict[str, str]) -> Iterator[str]:
    """Yield the table of an object's keys, the shared first ones left out."""
    yield "| key | type | unit | default | limits | meaning |"
    yield "|---|---|---|---|---|---|"
    required = schema.get("required", ())
    for key, entry in schema["properties"].items():
        if key in ("schema_version", "$schema"):
            continue
        meaning, unit = unit_of(entry["description"])
        default = "**required**" if key in required else f"`{json.dumps(entry.get('default', {}))}`"
        kinds, limits = typed(entry, told)
        yield f"| `{key}` | {kinds} | {unit} | {default} | {limits} | {meaning} |"


def unit_of(description: str) -> tuple[str, str]:
    """Return a meaning without its unit, and the unit."""
    found = re.search(r" \[([^\]]+)\]", description)
    if found is None:
        return description, ""
    return description[: found.start()] + description[found.end() :], found[1]


def typed(entry: Schema, told: dict[str, str]) -> tuple[str, str]:
    """Return an entry's type in words, and its limits."""
    forms = [form for form in entry.get("anyOf", entry.get("oneOf", [entry])) if form.get("type") != "null"]
    if any(str(form.get("pattern", "")).endswith("[KMGT]i?B)\\s*$") for form in forms):
        return "size", limits_of(forms[0])
    words = list(dict.fromkeys(word(form, told) for form in forms))
    limits = list(dict.fromkeys(limits_of(form) for form in forms))
    return " or ".join(words), ", ".join(limit for limit in limits if limit)


def word(form: Schema, told: dict[str, str]) -> str:
    """Return a type in words."""
    if "anyOf" in form or "oneOf" in form:
        return typed(form, told)[0]
    if "$ref" in form:
        return told[form["$ref"].rpartition("/")[2]]
    if "enum" in form or "const" in form:
        return ", ".join(f"`{value}`" for value in form.get("enum", [form.get("const")]))
    if form["type"] == "array":
        if "prefixItems" in form:
            inner = word(form["prefixItems"][0], told)
            return f"list of {form['minItems']}: {inner}"
        return f"list of {typed(form['items'], told)[0]}"
    if form["type"] == "object":
        keys = form.get("propertyNames", {"type": "string"})
        names = word(keys, told) if "enum" in keys else "name"
        # Keys of a pattern have their values under it.
        (values,) = form.get("patternProperties", {"": form.get("additionalProperties")}).values()
        return f"object: {names} → {typed(values, told)[0]}"
    named = form["type"] == "string" and form.get("maxLength") == 200
    return "name" if named else {"boolean": "true or false", "string": "text"}.get(form["type"], form["type"])


def limits_of(form: Schema) -> str:
    """Return the limits of a value: of a number, or of how many entries there are."""
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {number(form[key])}" for key, sign in signs.items() if key in form]
    if form.get("type") == "array":
        if "minItems" in form and "prefixItems" not in form:
            found.append(f"at least {form['minItems']}")
        inner = limits_of(form.get("items", {}))
        found += [f"each {inner}"] if inner else []
    return ", ".join(found)


def number(value: float) -> str:
    """Return a limit as people write it."""
    if value == 2**50:
        return "1 PiB"
    return f"{value:,.0f}" if value < 1e6 and value == int(value) else f"{value:g}"


def source(name: str) -> str:
    """Return where an example lies, if it is a file."""
    return f", [{FILES[name]}](../{FILES[name]})" if name in FILES else ""


def example(name: str) -> str:
    """Return a valid file of a format."""
    if name in FILES:
        return (ROOT / FILES[name]).read_text().strip()
    return json.dumps({"schema_version": 1} | SMALL[name], indent=1)


if __name__ == "__main__":
    write_text(PAGE, page())

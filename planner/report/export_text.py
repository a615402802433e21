"""Table of an exported deployment, for the terminal."""

from rich.console import Group, RenderableType

from planner.report.text import make_table, name_text
from planner.runtime.export_folders import Exported
from planner.units import count_noun, format_bytes, format_share


def export_text(exported: Exported) -> RenderableType:
    """Return the folders of all devices as a table, and the accuracy that was measured beside the bundle's."""
    manifest, accuracy = exported.manifest, exported.manifest.accuracy
    shape = " x ".join(map(str, manifest.input.shape))
    title = f"Exported for images of {format_bytes(manifest.input.num_bytes)} ({manifest.input.dtype}, {shape})"
    table = make_table(title, "device", "folder", "engine", "precision", "off torch by")
    for device, precision, error in zip(
        manifest.devices, exported.precisions, exported.comparison.feature_errors, strict=True
    ):
        off = "not checked" if error is None else f"{error:.1e}"
        table.add_row(name_text(device.name), device.folder, device.engine, precision, off)
    on_test = f"Accuracy on the {accuracy.num_images:,} test images: "
    of_torch = f"{format_share(accuracy.bundle, 1)} in torch, float32"
    if accuracy.exported is None or exported.comparison.num_changed is None:
        lines = [f"{on_test}{of_torch}; not measured as exported, as there is no C compiler here."]
    else:
        changed = f"another answer on {exported.comparison.num_changed:,}"
        lines = [f"{on_test}{format_share(accuracy.exported, 1)} as exported, {of_torch}; {changed}."]
    if stand_ins := sum(device.stand_in for device in manifest.devices):
        lines.append(f"ONNX Runtime stands in for the C engine on {count_noun(stand_ins, 'device')}.")
    table.columns[-1].justify = "right"
    return Group(table, *lines)

"""A model's card for the terminal, readable at 80 columns."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.schema import ModelCard, Size


def card_text(card: ModelCard, size: Size) -> RenderableType:
    """Return what a model is, as a table of its sizes."""
    a = card.architecture
    kind = "distilled (two tokens, two head layers)" if a.distilled else "plain"
    some = list(card.classes[:5]) + ["..."] * (len(card.classes) > 5)
    rows = {
        "image": f"{a.image_size} x {a.image_size} pixels, {a.in_channels} channel{'s' * (a.in_channels > 1)}",
        "patches": f"{a.patch_size} x {a.patch_size} pixels, {(a.image_size // a.patch_size) ** 2} of them",
        "blocks": f"{a.depth}, {kind}",
        "embed dim": f"{a.embed_dim}",
        "heads": f"{a.num_heads} of dim {a.head_dim}",
        "hidden dim": f"{a.hidden_dim}",
        "layer norms": f"epsilon {a.layer_norm_eps:g}",
        "classes": f"{len(card.classes)}: {', '.join(some)}",
        "parameters": f"{size.params:,}",
        "MACs": f"{size.macs / 1e6:,.1f} M for one image",
    }
    table = Table(show_header=False)
    table.add_column("what", no_wrap=True)
    table.add_column("found", overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(value))
    return Group(Text(card.model, style="bold"), Text(card.description), table)

"""A model's card for the terminal, readable at 80 columns."""

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from planner.schema import ModelCard, Size
from planner.units import count_noun, format_macs, visible

_MAX_CLASSES = 5
_POOLED = {
    "class_token": "the class token",
    "mean": "the mean of the patches",
    "sequence": "the mean of the patches, weighted by a softmax",
}
_QK_NORMS = {
    None: "",
    "layer_norm": ", queries and keys behind a layer norm",
    "rms_norm": ", queries and keys behind an RMS norm",
}


def card_text(card: ModelCard, size: Size) -> RenderableType:
    """Return a model's architecture, classes and sizes as a table."""
    a = card.architecture
    variant = "distilled (two tokens, two head layers)" if a.distilled else "plain"
    tokens = [count_noun(a.register_tokens, "register token")] * (a.register_tokens > 0)
    tokens += ["no class token"] * (not a.class_token)
    (height, width), (patch_height, patch_width) = a.image_sides, a.patch_sides
    num_patches = (height // patch_height) * (width // patch_width)
    classes = [*map(visible, card.classes[:_MAX_CLASSES]), *["..."] * (len(card.classes) > _MAX_CLASSES)]
    stem = f" behind {count_noun(len(a.stem_channels), 'convolution')}" * (a.stem_channels != ())
    between = ["the stream normalised between halves"] * a.norm_between_halves
    rows = {
        "image": f"{height} x {width} pixels, {count_noun(a.in_channels, 'channel')}",
        "patches": f"{patch_height} x {patch_width} pixels, {num_patches} of them{stem}",
        "blocks": ", ".join([f"{a.depth}", variant, *tokens, *between]),
        "head layer": "reads both tokens" if a.distilled else f"reads {_POOLED[a.pooling]}",
        "embed dim": f"{a.embed_dim}",
        "heads": f"{a.num_heads} of dim {a.head_dim}{_QK_NORMS[a.qk_norm]}",
        "hidden dim": f"{a.hidden_dim}{' with gates' * a.gated_mlp}, activation {a.activation}",
        "layer norms": f"epsilon {a.layer_norm_eps:g}",
        "classes": f"{len(card.classes)}: {', '.join(classes)}",
        "parameters": f"{size.params:,}",
        "MACs": f"{format_macs(size.macs)} for one image",
    }
    table = Table(show_header=False)
    table.add_column("property", no_wrap=True)
    table.add_column("value", overflow="fold")
    for name, value in rows.items():
        table.add_row(name, Text(value))
    # A description is prose: its line breaks stay.
    description = "\n".join(map(visible, card.description.splitlines()))
    return Group(Text(visible(card.model), style="bold"), Text(description), table)

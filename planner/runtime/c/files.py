"""Files of the engine, which are the same for every sub-model."""

from pathlib import Path

ENGINE_FILES = ("kernels.h", "block.h", "kernels.c", "vit.h", "vit.c", "fusion.h", "fusion.c")


def engine_files() -> dict[str, str]:
    """Return the text of each file of the engine by its name."""
    folder = Path(__file__).parent
    return {name: (folder / name).read_text(encoding="utf-8") for name in ENGINE_FILES}

"""A notebook executed anew beside what is stored of it."""

import nbformat

from notebooks.build import HERE, comparable, execute


def assert_fresh(name: str) -> None:
    """What each cell says is what is stored: text, tables, and what figures draw.

    Times in seconds and versions are left out; of cells that train, all numbers.
    """
    path = HERE / f"{name}.ipynb"
    stored = nbformat.read(path, as_version=4)
    for old, new in zip(stored.cells, execute(path).cells, strict=True):
        message = (
            f"{path.name}, cell {old.id}: what is stored is not what comes out; run `make notebooks`.\n{old.source}"
        )
        assert comparable(new) == comparable(old), message

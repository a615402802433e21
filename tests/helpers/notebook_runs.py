"""A notebook executed anew, compared with its stored outputs."""

import nbformat

from notebooks.build import HERE, comparable, execute


def assert_fresh(name: str) -> None:
    """Assert that the stored outputs of each cell are the new ones: text, tables and figures.

    Times in seconds and versions are left out; of cells that train, all numbers.
    """
    path = HERE / f"{name}.ipynb"
    stored = nbformat.read(path, as_version=4)
    for old, new in zip(stored.cells, execute(path).cells, strict=True):
        message = (
            f"{path.name}, cell {old.id}: what is stored is not what comes out; run `make notebooks`.\n{old.source}"
        )
        assert comparable(new) == comparable(old), message

"""Images and labels that a model card names, ready for the network."""

from planner.network.data.jitter import Jitter
from planner.network.data.load import DataPart, load, load_stored_test, load_test
from planner.network.data.samples import Images, LazyImages, Samples, fold

__all__ = [
    "DataPart",
    "Images",
    "Jitter",
    "LazyImages",
    "Samples",
    "fold",
    "load",
    "load_stored_test",
    "load_test",
]

"""The shipped model can be made again from its card."""

import shutil
from pathlib import Path

import pytest
from rich.progress import Progress

from planner.executor.train_whole import train_whole
from planner.network.checkpoint import load_card
from planner.schema import ModelCard, read_document
from planner.shipped import folder


def test_training_again_gives_the_accuracy_of_the_card(tmp_path: Path) -> None:
    """From the card alone, at least 97 % and within half a point of what the card states; the new card says so."""
    shipped = load_card("digits-vit")
    card = tmp_path / "card.json"
    shutil.copy(folder("models") / "digits-vit" / "card.json", card)
    trained = train_whole(card, Progress(disable=True))
    assert trained.accuracy["test"] >= 0.97
    assert trained.accuracy["test"] == pytest.approx(shipped.accuracy["test"], abs=0.005)
    assert read_document(card, ModelCard) == trained
    assert (tmp_path / trained.weights).exists()

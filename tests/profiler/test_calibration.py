"""Calibration images: what the whole model makes of them, and models that are not those of their cards."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from planner.errors import InputError
from planner.network import data
from planner.network.checkpoint import find_card, load_model
from planner.profiler.build import build_profile
from planner.profiler.calibration import calibrate_whole
from planner.profiler.options import Stage


def changed_card(folder: Path, **changes: Any) -> str:
    """Write the digits ViT's card with some keys changed, beside its weights."""
    shipped = find_card("digits-vit")
    card = json.loads(shipped.read_text()) | changes
    (folder / "weights.safetensors").write_bytes((shipped.parent / "weights.safetensors").read_bytes())
    (folder / "card.json").write_text(json.dumps(card))
    return str(folder / "card.json")


def test_the_whole_model_is_run_over_the_calibration_images() -> None:
    """Each of them is right or wrong, and counted with its class."""
    card, whole = load_model("digits-vit")
    found = calibrate_whole(card, whole)
    samples = data.load(card, "calibration")
    with torch.inference_mode():
        right = whole(samples.images[:]).argmax(1) == samples.labels
    assert torch.equal(found.whole_is_right, right)
    images, errors = found.counts(10)
    for c in range(10):
        of_class = samples.labels == c
        assert (images[c], errors[c]) == (int(of_class.sum()), int((of_class & ~right).sum()))
    assert images.sum() == 270
    assert found.counts(12)[0].tolist() == [*images.tolist(), 0, 0]


def test_another_preprocessing_is_refused_before_any_other_work(tmp_path: Path) -> None:
    """With a wrong mean the model is far below its card, which one sentence says; no work folder is begun."""
    path = changed_card(tmp_path, preprocessing={"scale": 0.0625, "mean": [3.0], "std": [0.3761]})
    work, stages = tmp_path / "work", list[Stage]()
    with pytest.raises(InputError) as caught:
        build_profile(path, work, on_stage=stages.append)
    pattern = (
        r"card of 'digits-vit': the whole model must be about as accurate on its calibration images as the card says, "
        r"98\.5 %, got \d\d?\.\d %; look whether preprocessing, class names and data are those of its training\."
    )
    assert re.fullmatch(pattern, str(caught.value))
    assert {stage.name for stage in stages} == {"run the whole model"}
    assert not work.exists()


class Constant(torch.nn.Module):
    """A network that gets a share of the digits' calibration images right: all but the first so many."""

    def __init__(self, labels: torch.Tensor, num_wrong: int) -> None:
        super().__init__()
        self.answers, self.num_done = labels.clone(), 0
        self.answers[:num_wrong] = (labels[:num_wrong] + 1) % 10

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return logits of the next images."""
        answers = self.answers[self.num_done : self.num_done + len(images)]
        self.num_done += len(images)
        return torch.nn.functional.one_hot(answers, 10).float()


@pytest.mark.parametrize(
    ("stated", "num_wrong", "refused"),
    [
        # The card says 0.9852 +- 0.05, or +- 4 sqrt(0.25 / 270) = 0.1217 where it says 0.5.
        (0.9852, 17, False),  # 0.9370
        (0.9852, 18, True),  # 0.9333
        (0.5, 167, False),  # 0.3815
        (0.5, 168, True),  # 0.3778
        (None, 269, False),
        (None, 270, True),
    ],
)
def test_the_limits_of_a_cards_accuracy(stated: float | None, num_wrong: int, refused: bool) -> None:
    """Five points, or four deviations of chance, whichever is more; a model that gets none right is refused."""
    card, _ = load_model("digits-vit")
    labels = data.load(card, "calibration").labels
    card = card.replace(accuracy=None if stated is None else {"test": stated})
    network: Any = Constant(labels, num_wrong)
    if not refused:
        assert int((~calibrate_whole(card, network).whole_is_right).sum()) == num_wrong
        return
    with pytest.raises(InputError, match=r"got (93\.3 %|37\.8 %|none); look whether preprocessing"):
        calibrate_whole(card, network)

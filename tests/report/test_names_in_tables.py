"""Names in cells and lines: told apart, and no table of what cannot happen."""

import io

from rich.console import Console

from planner.report.text import evaluation_text, join_classes
from planner.schema import Evaluation


def test_names_of_several_words_do_not_run_together() -> None:
    """Commas stand between them; single words need none, and the end of many is counted."""
    assert join_classes(["0", "1", "8"]) == "0 1 8"
    assert join_classes(["0 turned", "1"]) == "0 turned, 1"
    assert join_classes([str(i) for i in range(13)]) == "0 1 2 3 4 5 6 7 8 9 ... (13)"
    assert join_classes([f"c {i}" for i in range(13)]).endswith("c 8, c 9 ... (13)")


def shown(*devices: str) -> str:
    """Return the text of an evaluation of a bundle on these devices."""
    size = {"params": 10, "macs": 20}
    evaluation = Evaluation.model_validate(
        {
            "num_images": 5,
            "whole_accuracy": 0.9,
            "fused_accuracy": 0.8,
            "whole_by_class": {"a": 0.9},
            "fused_by_class": {"a": 0.8},
            "without_device": dict.fromkeys(devices, 0.5),
            "without_device_by_class": {name: {"a": 0.5} for name in devices},
            "whole": size,
            "devices": dict.fromkeys(devices, size),
        }
    )
    file = io.StringIO()
    Console(file=file, width=80).print(evaluation_text(evaluation))
    return file.getvalue()


def test_nothing_is_said_of_the_loss_of_the_only_device() -> None:
    """What is left without one of two devices is shown; without the only one, nothing is."""
    assert "When a device is missing" in shown("near", "far")
    assert "When a device is missing" not in shown("near")

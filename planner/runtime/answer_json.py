"""Answers as JSON, for lines of the command line and for HTTP."""

from collections.abc import Sequence
from typing import Any

from planner.runtime.aggregator import Answer
from planner.runtime.fusion import probabilities


def answer_fields(answer: Answer, classes: Sequence[str]) -> dict[str, Any]:
    """Return an answer with the name of its class; null where no device answered.

    Args:
        answer: Answer of the fleet.
        classes: Names of the classes, in the order of the answers.
    """
    is_known = answer.label is not None
    confidence = round(float(probabilities(answer.logits)[answer.label]), 6) if is_known else None
    return {
        "class": classes[answer.label] if answer.label is not None else None,
        "confidence": confidence,
        "latency_us": answer.latency_us,
        "missing": list(answer.missing),
    }

"""Answers of a rehearsal, counted: times of each step, accuracy, and which devices were missing."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from planner.arrays import Ints
from planner.runtime.aggregator import Answer
from planner.runtime.rehearsal.bundle_answers import BundleAnswers
from planner.runtime.rehearsal.timings import Marks, StepTimes, step_times


@dataclass(frozen=True)
class AnsweredImage:
    """Answer to one image of the test part."""

    image: int
    answer: Answer


class Tally:
    """All answers of a rehearsal in their order."""

    def __init__(self) -> None:
        self._answered: list[AnsweredImage] = []

    def __len__(self) -> int:
        return len(self._answered)

    def add(self, image: int, answer: Answer) -> None:
        """Add the answer to an image, given by its index in the test part."""
        self._answered.append(AnsweredImage(image, answer))

    def latencies_us(self) -> list[float]:
        """Return the latency of each whole answer [us]; answers without a device are left out."""
        return [a.answer.latency_us for a in self._answered if not a.answer.missing]

    def fusions_us(self) -> list[float]:
        """Return the time of each fusion [us]."""
        return [a.answer.fusion_us for a in self._answered]

    def num_unanswered(self) -> int:
        """Return how many images no device answered."""
        return sum(a.answer.label is None for a in self._answered)

    def num_late(self, allowed_us: float) -> int:
        """Return how many answers took longer than allowed [us]."""
        return sum(a.answer.latency_us > allowed_us for a in self._answered)

    def steps(self, device: str, marks: Mapping[int, Marks]) -> list[StepTimes]:
        """Return the times of each image that a device answered."""
        replies = (a.answer.replies.get(device) for a in self._answered)
        return [step_times(r.sent_ns, r.received_ns, marks[r.id]) for r in replies if r is not None and r.id in marks]

    def num_replies(self, device: str) -> int:
        """Return how many images a device answered in time."""
        return sum(device in a.answer.replies for a in self._answered)

    def compared(self, bundle: BundleAnswers, labels: Ints) -> tuple[int, int, int]:
        """Return how many answers are right, how many of the bundle's own are, and how many differ from those.

        Args:
            bundle: The bundle's own answers, with the same devices missing.
            labels: Class of each image of the test part (B,).
        """
        by_missing: dict[frozenset[str], list[AnsweredImage]] = defaultdict(list)
        for answered in self._answered:
            by_missing[frozenset(answered.answer.missing)].append(answered)
        right = right_in_bundle = differing = 0
        for missing, group in by_missing.items():
            images = np.array([a.image for a in group])
            # Without any device there is no answer, which is wrong.
            got = np.array([-1 if a.answer.label is None else a.answer.label for a in group])
            expected, true = bundle.classes(missing)[images], labels[images]
            right += int((got == true).sum())
            right_in_bundle += int((expected == true).sum())
            differing += int((got != expected).sum())
        return right, right_in_bundle, differing

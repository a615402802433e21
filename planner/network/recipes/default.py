"""The default recipe."""

from planner.network.fusion import Fusion
from planner.network.joint import FusedAndOwn, Joint
from planner.network.objectives import LabelsAndSoft, OwnOrOtherAndSoft
from planner.network.recipes.job import FUSION_EPOCHS, Job, fuse_frozen
from planner.network.training import Schedule, Train, Training

LEARNING_RATE = 2e-3
APART = 1 / 2
OWN_WEIGHT = 0.3


def default(job: Job, train: Train) -> Fusion:
    """Distil each sub-model, fuse, then train all together."""
    apart = max(1, round(APART * job.epochs))
    schedule = Schedule(apart, learning_rate=LEARNING_RATE)
    train(
        [
            Training(
                part.device,
                part.sub_model,
                OwnOrOtherAndSoft(part.own, job.num_classes),
                job.lessons,
                job.held,
                schedule,
                job.seed + i,
            )
            for i, part in enumerate(job.parts)
        ]
    )
    fusion = fuse_frozen(job, train, LabelsAndSoft(), Schedule(FUSION_EPOCHS * apart, learning_rate=LEARNING_RATE))
    if job.epochs > apart:
        together = Schedule(job.epochs - apart, learning_rate=LEARNING_RATE / 2)
        own = FusedAndOwn([part.own for part in job.parts], job.num_classes, OWN_WEIGHT)
        joint = Joint(job.sub_models, fusion)
        train([Training("together", joint, own, job.lessons, job.held, together, job.seed)])
    return fusion

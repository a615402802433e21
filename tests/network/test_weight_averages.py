"""Moving averages of weights: what is measured and kept, and the same bits after any interruption."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from planner.network.training import Epoch, Schedule, TrainingTask, is_finished, load_best_weights, run_epoch, train
from planner.network.training_run import TrainingRun
from tests.helpers.plain_vit import State
from tests.helpers.trainings import assert_same, make_task, numbers

# A window of all steps is a plain mean.
ALL = Schedule(epochs=4, batch_size=8, learning_rate=1e-2, average_share=1.0)
SHORT = Schedule(epochs=4, batch_size=8, learning_rate=1e-2, average_share=0.25)


def weights_after_each_step(task: TrainingTask) -> list[State]:
    """Return the weights after each step, without any average: of trainings that end after so many steps."""
    run, seen = TrainingRun(task, task.module, torch.device("cpu")), list[State]()
    step = run.optimizer.step

    def noted() -> None:
        step()
        seen.append(numbers(run.module))

    run.optimizer.step = noted  # type: ignore[assignment,method-assign]
    for _ in range(1 + task.schedule.num_epochs):
        run.next_epoch()
    return seen


def finished_state(num_validation: int) -> bytes:
    """Return the last state of a training whose epochs are run by themselves."""
    state = None
    while state is None or not is_finished(state):
        state = run_epoch(make_task(num_validation=num_validation, schedule=SHORT), state)
    return state


@pytest.mark.parametrize("num_validation", [0, 6])
def test_a_window_of_all_steps_keeps_their_mean(num_validation: int) -> None:
    """The steps are those without an average; where validation images choose, the best average remains."""
    plain = weights_after_each_step(make_task(num_validation=num_validation, schedule=replace(ALL, average_share=0.0)))
    task, epochs = make_task(num_validation=num_validation, schedule=ALL), list[Epoch]()
    train(task, None, epochs.append)
    best = [epoch.epoch for epoch in epochs if epoch.best][-1]
    seen = plain[: best * (len(plain) // 4)]
    assert seen
    for name, tensor in numbers(task.module).items():
        mean = torch.stack([state[name].double() for state in seen]).mean(0)
        assert tensor.double().numpy() == pytest.approx(mean.numpy(), abs=1e-5)


def test_a_short_window_forgets() -> None:
    """With a window of three of twelve steps, each weighs a third from the third on."""
    plain = weights_after_each_step(make_task(schedule=replace(SHORT, average_share=0.0)))
    task = make_task(schedule=SHORT)
    train(task)
    for name, tensor in numbers(task.module).items():
        expected = plain[0][name].double()
        for i, state in enumerate(plain[1:], start=2):
            expected = expected + max(1 / i, 1 / 3) * (state[name].double() - expected)
        assert tensor.double().numpy() == pytest.approx(expected.numpy(), abs=1e-5)


@pytest.mark.parametrize("num_validation", [0, 6])
def test_an_interrupted_training_has_the_same_average(tmp_path: Path, num_validation: int) -> None:
    """Bit for bit, from bytes between any two epochs, in this process or as a worker does it."""
    unbroken = make_task(num_validation=num_validation, schedule=SHORT)
    train(unbroken)
    resumed = make_task(num_validation=num_validation, schedule=SHORT)
    load_best_weights(resumed, finished_state(num_validation))
    assert_same(numbers(resumed.module), numbers(unbroken.module))
    for num_epochs in (1, 2, 3):
        state = None
        for _ in range(num_epochs):
            state = run_epoch(make_task(num_validation=num_validation, schedule=SHORT), state)
        (tmp_path / "state").write_bytes(state or b"")
        again = make_task(num_validation=num_validation, schedule=SHORT)
        train(again, tmp_path / "state")
        assert_same(numbers(again.module), numbers(unbroken.module))

"""Convolutional networks of the rivals' benchmark: counts, filters kept, neurons, trainings."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.rivals.conv_rows import class_subsets
from benchmarks.rivals.conv_training import trained
from benchmarks.rivals.filters import filter_importance, keep_filters, most_important
from benchmarks.rivals.networks import ConvNet, ConvShape, conv_counts, initialised
from benchmarks.rivals.rows import one_pass
from planner.network.data import Samples
from planner.network.distillation_data import DistillationData
from planner.network.losses import CrossEntropyLoss
from planner.network.training import Schedule, TrainingTask, run_epoch
from planner.schema.base import write_bytes

SHAPE = ConvShape(in_channels=2, image_sides=(8, 8), num_classes=3, filters=(4, 5, 6, 4, 7))
SPIKING = replace(SHAPE, steps=3)
SHAPES = [pytest.param(SHAPE, id="plain"), pytest.param(SPIKING, id="spiking")]


def network_of(shape: ConvShape) -> ConvNet:
    """Return a network whose batch norms have seen some images."""
    network = initialised(shape, seed=0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for norm in network.norms:
            assert isinstance(norm, nn.BatchNorm2d)
            norm.weight.uniform_(0.5, 2, generator=generator)
            norm.bias.uniform_(-0.5, 0.5, generator=generator)
        network.train()(images(16, seed=2))
    return network.eval()


def images(count: int, seed: int) -> Tensor:
    """Return random images of the shape, (B, 2, 8, 8)."""
    return torch.randn(count, 2, 8, 8, generator=torch.Generator().manual_seed(seed))


def test_counts_by_hand() -> None:
    """One filter in each layer, 4x4 pixels: layers of 16, 16, 4, 4 and 1 positions with 9 MACs each, 2 for the head."""
    shape = ConvShape(1, (4, 4), num_classes=2, filters=(1, 1, 1, 1, 1))
    one = conv_counts(shape)
    # Each layer has 9 weights and a bias; the head 2 weights and 2 biases.
    assert (one.macs, one.params) == (9 * (16 + 16 + 4 + 4 + 1) + 2, 5 * 10 + 4)
    assert conv_counts(replace(shape, steps=3)).macs == 3 * 9 * 41 + 2


def test_parameters_are_the_modules() -> None:
    """Parameters counted are those of the modules, but for the scale of a batch norm, which is folded away."""
    network = ConvNet(SHAPE)
    assert conv_counts(SHAPE).params == sum(p.numel() for p in network.parameters()) - sum(SHAPE.filters)


@pytest.mark.parametrize("shape", SHAPES)
def test_kept_filters_give_what_masked_ones_give(shape: ConvShape) -> None:
    """A network of some filters gives what the whole gives with all others at zero."""
    network, batch = network_of(shape), images(5, seed=3)
    kept = [torch.tensor(indices) for indices in ((0, 3), (1, 2, 4), (0, 5), (2,), (0, 1, 6))]
    gates = [torch.zeros(1, f, 1, 1) for f in shape.filters]
    for gate, indices in zip(gates, kept, strict=True):
        gate[:, indices] = 1
    small = keep_filters(network, kept).eval()
    assert small.shape.filters == (2, 3, 2, 1, 3)
    with torch.no_grad():
        torch.testing.assert_close(small(batch), network(batch, gates))
        assert not torch.allclose(small(batch), network(batch))


def test_importance_in_closed_form() -> None:
    """Without a filter of the last layer its feature is gone: the derivative is feature times weights times error."""
    network, batch, labels = network_of(SHAPE), images(6, seed=4), torch.tensor([0, 1, 2, 0, 1, 2])
    with torch.no_grad():
        features = network.features(batch)
        errors = network(batch).softmax(1) - F.one_hot(labels, 3)
        expected = (features * (errors @ network.head.weight)).abs().sum(0)
    torch.testing.assert_close(filter_importance(network, Samples(batch, labels))[-1], expected)


def test_the_most_important_are_kept_in_order() -> None:
    """Of 3, 1, 2 and 9 the two largest are the first and the last."""
    assert [k.tolist() for k in most_important([torch.tensor([3.0, 1.0, 2.0, 9.0])], [2])] == [[0, 3]]


def test_spikes_by_hand() -> None:
    """Features are mean spike rates of neurons that leak a tenth, fire above one and are reset by one a step later."""
    network, batch = network_of(SPIKING), images(4, seed=5)
    membranes = [torch.zeros(())] * 5
    rates = torch.zeros(4, 7)
    with torch.no_grad():
        for _ in range(3):
            x = batch
            for l, (convolution, norm) in enumerate(zip(network.convolutions, network.norms, strict=True)):
                reset = (membranes[l] > 1).float()
                membranes[l] = 0.9 * membranes[l] + norm(convolution(x)) - reset
                x = (membranes[l] > 1).float()
                x = F.max_pool2d(x, 2) if l in (1, 3) else x
            rates += x.mean((2, 3)) / 3
        assert rates.max() > 0
        torch.testing.assert_close(network.features(batch), rates)


def test_a_pass_has_no_neurons() -> None:
    """What is timed of a spiking network has the same filters, and ReLU."""
    assert one_pass(SPIKING) == SHAPE


def test_class_subsets() -> None:
    """Ten classes on four devices: each class on one, two or three on each, others with another seed."""
    drawn = class_subsets(10, 4, seed=0)
    assert sorted(c for own in drawn for c in own) == list(range(10))
    assert sorted(map(len, drawn)) == [2, 2, 3, 3]
    assert drawn != class_subsets(10, 4, seed=1)


def training(network: ConvNet) -> TrainingTask:
    """Return a training of two epochs on random images."""
    none = torch.empty(1, 12, 0)
    samples = DistillationData(images(12, seed=6), torch.arange(12) % 3, torch.zeros(1, 12, 4), none, none)
    schedule = Schedule(2, batch_size=4)
    return TrainingTask("net", network, CrossEntropyLoss(), samples, samples.take(torch.arange(0)), schedule, 0)


def test_a_stopped_training_goes_on(tmp_path: Path) -> None:
    """After one of two epochs and a kill, the weights become those of an unbroken training, bit for bit."""
    unbroken, stopped = initialised(SHAPE, 0), initialised(SHAPE, 0)
    assert trained(lambda: training(unbroken), unbroken, tmp_path / "unbroken.safetensors") == 24
    state = run_epoch(training(stopped), run_epoch(training(stopped), None))
    write_bytes(tmp_path / "stopped.state", state)
    assert trained(lambda: training(stopped), stopped, tmp_path / "stopped.safetensors") == 24
    assert all(torch.equal(a, b) for a, b in zip(unbroken.parameters(), stopped.parameters(), strict=True))
    assert not torch.equal(stopped.head.weight, initialised(SHAPE, 0).head.weight)


def test_a_finished_training_is_read(tmp_path: Path) -> None:
    """It is not made again, and the weights and the number of images are those of the first time."""
    first, second = initialised(SHAPE, 0), initialised(SHAPE, 9)
    path = tmp_path / "net.safetensors"
    trained(lambda: training(first), first, path)

    def never() -> TrainingTask:
        raise AssertionError("made again")

    assert trained(never, second, path) == 24
    assert torch.equal(first.head.weight, second.head.weight)

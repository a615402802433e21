"""The training loop: resumed equals unbroken, here or elsewhere; the best epoch remains; what stops it."""

import copy
import json
import math
import pickle
import resource
import subprocess
from dataclasses import dataclass, replace

import pytest
import torch
from plain_vit import random_images, random_model
from safetensors import safe_open
from safetensors.torch import load, save
from torch import Tensor, nn
from torch.nn import functional as F

from planner.errors import InputError, PlannerError
from planner.network import training as loop
from planner.network.data import Jitter, Samples
from planner.network.evaluate import accuracy
from planner.network.fusion import Fusion
from planner.network.joint import FusedAndOwn, Joint, Matched, TokenMatching
from planner.network.lessons import Batch, find_features, prepare_lessons
from planner.network.objectives import Labels, LabelsAndSoft, Objective, OwnOrOther, OwnOrOtherAndSoft, Relations
from planner.network.training import (
    Schedule,
    Training,
    adopt,
    check_device,
    fit,
    history,
    is_finished,
    run_epoch,
    train_here,
)
from planner.network.vit import Shape, VisionTransformer, initialise
from planner.schema.base import write_bytes

SHAPE = Shape(4, 2, 2, 3, embed_dim=8, head_dim=4, num_heads=(2, 0, 1), hidden_dim=(5, 3, 0))
IMAGES = random_images(SHAPE, 20)
TARGETS = torch.arange(20) % 3
SCHEDULE = Schedule(epochs=4, batch_size=8)


def generator(seed=0):
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


@dataclass(frozen=True)
class Noisy:
    """Inputs with random noise on them, and labels."""

    inputs: Tensor
    labels: Tensor

    def __len__(self):
        return len(self.labels)

    def batch(self, indices, generator):
        """Return inputs with noise; no teacher says anything."""
        inputs, silence = self.inputs[indices], torch.empty(len(indices), 0)
        noise = 0.1 * torch.randn(inputs.shape, generator=generator)
        return Batch(inputs + noise, self.labels[indices], silence, silence)


def fresh(kind="vit", held=0, schedule=SCHEDULE, seed=3):
    """Return a training of an untrained network on labels, so many of 20 samples held out."""
    if kind == "vit":
        model, inputs = VisionTransformer(SHAPE), IMAGES
        initialise(model, generator(5))
    else:
        model, inputs = Fusion([20, 12], hidden=6, num_classes=3), IMAGES.flatten(1)
        with torch.no_grad():
            for p in (*model.fc1.parameters(), *model.fc2.parameters()):
                p.normal_(generator=generator(5))
            model.standardise(inputs)
    learned = Noisy(inputs[: 20 - held], TARGETS[: 20 - held])
    return Training(kind, model, Labels(), learned, Noisy(inputs[20 - held :], TARGETS[20 - held :]), schedule, seed)


def lessons():
    """Return 20 images in three copies, with the answers of a random teacher, and the teacher."""
    teacher = random_model(SHAPE)
    return prepare_lessons(teacher, Samples(IMAGES, TARGETS), Jitter(0.3, 5.0), seed=0, num_copies=3), teacher


def real(kind):
    """Return a training with one of the recipes' objectives, a quarter of the images held out."""
    known, teacher = lessons()
    models = [random_model(SHAPE, seed) for seed in (1, 2)]
    fusion = Fusion([8, 8], hidden=4, num_classes=3)
    for p in (*fusion.fc1.parameters(), *fusion.fc2.parameters()):
        nn.init.normal_(p, generator=generator(3))
    matched = Matched(models, fusion, teacher.shape.embed_dim)
    nn.init.normal_(matched.match.weight, generator=generator(4))
    nn.init.zeros_(matched.match.bias)
    module, objective = {
        "own or other": (models[0], OwnOrOther([0], 3)),
        "own or other and soft": (models[0], OwnOrOtherAndSoft([0, 2], 3)),
        "relations": (models[0], Relations([0, 1, 2], teacher)),
        "fusion": (fusion, LabelsAndSoft()),
        "fused and own": (Joint(models, fusion), FusedAndOwn([[0], [1, 2]], 3, 0.3)),
        # Head layers of the sub-models are out of reach of this one.
        "token matching": (matched, TokenMatching()),
    }[kind]
    data, held = known.take(torch.arange(15)), known.take(torch.arange(15, 20))
    if kind == "fusion":
        data, held = (find_features(models, part) for part in (data, held))
    return Training(kind, module, objective, data, held, Schedule(3, 8, 1e-2), seed=3)


REAL = ["own or other", "own or other and soft", "relations", "fusion", "fused and own", "token matching"]


def numbers(model):
    """Return all of a model's numbers, by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one, other):
    """Two states are equal bit for bit."""
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


def without_seconds(epochs):
    """Return epochs as if they took no time."""
    return [replace(epoch, seconds=0.0) for epoch in epochs]


class DiedError(Exception):
    """Raised where a run is to die."""


# Resumed is unbroken


@pytest.mark.parametrize("kind", ["vit", "fusion"])
@pytest.mark.parametrize(("held", "died_after"), [(0, 1), (0, 2), (0, 4), (6, 1), (6, 3)])
def test_an_interrupted_training_goes_on_as_if_unbroken(tmp_path, kind, held, died_after):
    """A run that died after an epoch and was started again ends, bit for bit, where an unbroken one does."""
    unbroken, said = fresh(kind, held), []
    fit(unbroken, on_epoch=said.append)

    def die(epoch):
        if epoch.epoch == died_after:
            raise DiedError

    with pytest.raises(DiedError):
        fit(fresh(kind, held), tmp_path / "state", die)
    resumed, said_again = fresh(kind, held), []
    fit(resumed, tmp_path / "state", said_again.append)
    assert_same(numbers(resumed.module), numbers(unbroken.module))
    assert without_seconds(said_again) == without_seconds(said)
    assert [epoch.epoch for epoch in said] == [1, 2, 3, 4][: len(said)]
    assert not resumed.module.training


def test_a_training_that_died_within_an_epoch_goes_on_from_the_last_whole_one(tmp_path):
    """Half an epoch is forgotten, and leaves no trace."""
    unbroken = fresh()
    fit(unbroken)
    steps = iter(range(100))

    class Dying(Labels):
        def forward(self, module, batch, generator):
            # 20 samples in batches of 8 are 3 steps an epoch: step 7 is in the third.
            if next(steps) == 7:
                raise DiedError
            return super().forward(module, batch, generator)

    with pytest.raises(DiedError):
        fit(replace(fresh(), objective=Dying()), tmp_path / "state")
    resumed = fresh()
    fit(resumed, tmp_path / "state")
    assert_same(numbers(resumed.module), numbers(unbroken.module))


@pytest.mark.parametrize("kind", REAL)
def test_epochs_run_one_by_one_elsewhere_give_the_same_bits(kind):
    """A chain of epochs, each of a pickled copy, ends where a training in memory does, and changes nothing given."""
    here, said = real(kind), []
    fit(here, on_epoch=said.append)
    there, state = real(kind), None
    before = numbers(there.module), numbers(there.objective)
    while state is None or not is_finished(state):
        state = run_epoch(pickle.loads(pickle.dumps(there)), state)
        state_again = run_epoch(there, None)
    assert_same(numbers(there.module), before[0])
    assert_same(numbers(there.objective), before[1])
    assert history(state_again)[0].loss == history(state)[0].loss
    adopt(there, state)
    assert_same(numbers(there.module), numbers(here.module))
    assert without_seconds(history(state)) == without_seconds(said)
    assert not there.module.training
    with pytest.raises(PlannerError, match=r"must have epochs left to run, got a state that is finished"):
        run_epoch(there, state)


def test_training_is_the_seeds():
    """The same seed ends at the same weights, another seed at others."""
    states = []
    for seed in (3, 3, 4):
        training = fresh(seed=seed)
        train_here([training])
        states.append(numbers(training.module))
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


def test_trainings_here_come_one_after_the_other():
    """Each is trained as by itself, and its epochs are told under its name."""
    alone = fresh("vit")
    fit(alone)
    both, told = [fresh("vit"), fresh("fusion")], []
    train_here(both, told.append)
    assert_same(numbers(both[0].module), numbers(alone.module))
    assert [epoch.training for epoch in told] == ["vit"] * 4 + ["fusion"] * 4


def test_training_learns():
    """A small network learns labels that are the sign of the image's sum."""
    shape = Shape(4, 2, 1, 2, 8, 4, (2,), (16,))
    model = VisionTransformer(shape)
    initialise(model, generator())
    images = random_images(shape, 64)
    samples = Samples(images, (images.sum((1, 2, 3)) > 0).long())
    known = prepare_lessons(model, samples, Jitter(0.0, 0.0), seed=0)
    fit(Training("sign", model, Labels(), known, known.take(torch.arange(0)), Schedule(40, 16, 5e-3), seed=0))
    assert accuracy(model, samples) > 0.9


def test_what_is_frozen_stays_as_it_is():
    """The fusion's mean and spread are not trained and do not decay, and a teacher learns nothing."""
    training = fresh("fusion")
    before = numbers(training.module)
    fit(training)
    assert torch.equal(training.module.mean, before["mean"])
    assert torch.equal(training.module.std, before["std"])
    assert not torch.equal(training.module.fc1.weight, before["fc1.weight"])
    training = real("relations")
    before = numbers(training.objective)
    fit(training)
    assert_same(numbers(training.objective), before)


# When to stop


class Scripted(Objective):
    """Labels while it is trained; in eval mode, one of these values after the other."""

    def __init__(self, values):
        super().__init__()
        self.values = list(values)

    def forward(self, module, batch, generator):
        if module.training:
            return F.cross_entropy(module(batch.inputs), batch.labels)
        assert not torch.is_grad_enabled()
        return torch.tensor(self.values.pop(0))


@pytest.mark.parametrize(
    ("held_losses", "lowest_so_far"),
    [
        # Two epochs without a lower one: as low is not lower.
        ([3.0, 2.0, 2.5, 2.0, 1.0, 1.0, 1.0, 1.0], [1, 2]),
        ([3.0, 2.0, 2.5, 1.9, 2.0, 1.8, 1.9, 1.9], [1, 2, 4, 6]),
        ([3.0, 3.1, 2.9, 2.8, 2.7, 2.6, 2.5, 2.4], [1, 3, 4, 5, 6, 7, 8]),
    ],
)
def test_the_best_epoch_remains(held_losses, lowest_so_far):
    """Of eight epochs, two without a lower held-out loss end the training; the weights are those of the lowest."""
    training, weights, told = fresh(held=6, schedule=Schedule(8, 8)), [], []
    training = replace(training, objective=Scripted(held_losses))

    def look(epoch):
        told.append(epoch)
        weights.append(numbers(training.module))

    fit(training, on_epoch=look)
    assert len(told) == min(8, lowest_so_far[-1] + 2)
    assert [epoch.held_loss for epoch in told] == pytest.approx(held_losses[: len(told)])
    assert [epoch.epoch for epoch in told if epoch.best] == lowest_so_far
    assert_same(numbers(training.module), weights[lowest_so_far[-1] - 1])


def test_the_held_loss_is_the_mean_over_held_samples_as_they_are_left():
    """Of six held samples in batches of four: the plain mean over all, after the epoch, each time of the same noise."""
    training = fresh(held=6, schedule=Schedule(2, 4))
    told, expected = [], []

    def look(epoch):
        told.append(epoch)
        draw = generator(training.seed)
        noise = torch.cat([0.1 * torch.randn(n, 2, 4, 4, generator=draw) for n in (4, 2)])
        with torch.no_grad():
            logits = training.module(training.held.inputs + noise).double().numpy()
        p = torch.tensor(logits).softmax(1)[range(6), training.held.labels]
        expected.append(-p.log().mean().item())

    fit(training, on_epoch=look)
    assert [epoch.held_loss for epoch in told] == pytest.approx(expected, rel=1e-5)


def test_a_training_of_samples_alone_runs_all_epochs():
    """Where nothing is held out, no loss is measured and the last epoch is the best."""
    told = []
    fit(fresh(schedule=Schedule(9, 8)), on_epoch=told.append)
    assert [(epoch.epoch, epoch.epochs, epoch.held_loss, epoch.best) for epoch in told] == [
        (n, 9, None, True) for n in range(1, 10)
    ]


def test_patience_is_a_quarter_of_the_epochs():
    """A quarter, rounded up, and at least two."""
    assert [Schedule(epochs).patience for epochs in (1, 8, 9, 20, 21)] == [2, 2, 3, 5, 6]


def test_the_loss_of_an_epoch_is_the_mean_of_its_batches():
    """With a learning rate of nothing, the mean over batches is what the untrained network gives for each."""
    training, told = fresh(schedule=Schedule(1, 8, learning_rate=0.0)), []
    model = copy.deepcopy(training.module)
    fit(training, on_epoch=told.append)
    draw, losses = generator(3 * 1_000_003), []
    for indices in torch.randperm(20, generator=draw).split(8):
        noise = 0.1 * torch.randn(len(indices), 2, 4, 4, generator=draw)
        losses.append(F.cross_entropy(model(IMAGES[indices] + noise), TARGETS[indices]).item())
    assert told[0].loss == pytest.approx(sum(losses) / 3, rel=1e-6)
    assert told[0].learning_rate == 0.0
    assert told[0].seconds > 0


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(value):
    """The message says of what training, in which epoch, and at which learning rate."""
    steps = iter(range(100))

    class Bursting(Labels):
        def forward(self, module, batch, generator):
            # Three steps an epoch: step 4 is in the second epoch, behind one step of warm-up out of 12.
            return super().forward(module, batch, generator) * (value if next(steps) == 4 else 1.0)

    rate = SCHEDULE.rate(4, 12)
    wanted = rf"training 'vit': the loss became {value} in epoch 2 at learning rate {rate:.2g}; lower the learning rate"
    with pytest.raises(PlannerError, match=wanted):
        fit(replace(fresh(), objective=Bursting()))


def test_the_learning_rate_warms_up_and_comes_down():
    """Over 20 steps with a tenth of warm-up: half, whole, then a cosine from the whole down towards zero."""
    schedule = Schedule(epochs=1, learning_rate=0.1, warmup_share=0.1)
    rates = [schedule.rate(step, 20) for step in range(20)]
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert rates[11] == pytest.approx(0.05)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert 0 < rates[-1] < 0.001


# States


def rewritten(content, change=lambda tensors: tensors, said=None):
    """Return a training state with its tensors changed, or what is said of them."""
    kept = json.loads(header(content)["training"]) if said is None else said
    return save(change(load(content)), {"training": json.dumps(kept)} if kept else None)


def header(content):
    """Return a state's metadata."""
    return json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]


def without(state, name):
    """Return a state without a tensor."""
    return {key: tensor for key, tensor in state.items() if key != name}


DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "text": lambda content: b"not a training state",
    "no weights": lambda content: rewritten(content, lambda s: without(s, "model.head.bias")),
    "another network's": lambda content: rewritten(content, lambda s: s | {"model.head.bias": torch.ones(7)}),
    "no metadata": lambda content: rewritten(content, said={}),
    "no history": lambda content: rewritten(content, said={"finished": False}),
    "no epochs": lambda content: rewritten(content, said={"finished": False, "history": []}),
    "an epoch of other keys": lambda content: rewritten(content, said={"finished": False, "history": [{"loss": 1}]}),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_is_refused(tmp_path, damage):
    """A state that cannot be resumed is named, with what to do about it; so is one that is to be adopted."""
    state = damage(run_epoch(fresh(), None))
    (tmp_path / "state").write_bytes(state)
    with pytest.raises(PlannerError, match=r"state: not a training state .*delete it to begin again"):
        fit(fresh(), tmp_path / "state")
    for use in (adopt, run_epoch):
        with pytest.raises(PlannerError, match=r"training 'vit': not a training state .*delete it to begin again"):
            use(fresh(), state)


def test_a_state_without_moments_is_refused():
    """A training cannot go on without them: each parameter has both or, never reached, none."""
    state = rewritten(run_epoch(fresh(), None), lambda s: without(s, "moments.exp_avg.head.bias"))
    with pytest.raises(PlannerError, match=r"not a training state \('exp_avg.head.bias'\); delete it"):
        run_epoch(fresh(), state)


@pytest.mark.parametrize("of", [history, is_finished])
@pytest.mark.parametrize("content", [b"", b"not a training state", save({"a": torch.ones(1)})])
def test_what_is_no_state_has_no_history(of, content):
    """The header alone is read, and it too may be damaged."""
    with pytest.raises(PlannerError, match="not a training state"):
        of(content)


def test_a_state_of_another_training_is_refused():
    """The learning rate of an epoch depends on how many there are, so a state goes on with as many alone."""
    state = run_epoch(fresh(), None)
    with pytest.raises(PlannerError, match=r"must be of 'vit' with 5 epochs, got \[\('vit', 4\)\]"):
        run_epoch(fresh(schedule=Schedule(5, 8)), state)
    with pytest.raises(PlannerError, match=r"must be of 'other' with 4 epochs, got \[\('vit', 4\)\]"):
        adopt(replace(fresh(), name="other"), state)


def test_a_state_that_is_a_folder_is_refused(tmp_path):
    """What cannot be read is named."""
    with pytest.raises(PlannerError, match=r"not a training state .*Is a directory"):
        fit(fresh(), tmp_path)


def test_a_state_holds_the_best_epoch_only_where_it_is_not_the_last():
    """A third as many numbers again where the last epoch was not the best."""
    training = replace(fresh(held=6), objective=Scripted([2.0, 3.0]))
    first = run_epoch(training, None)
    second = run_epoch(replace(training, objective=Scripted([3.0])), first)
    assert not [name for name in load(first) if name.startswith("best.")]
    found = load(second)
    for name, tensor in load(first).items():
        if name.startswith("model."):
            assert torch.equal(found["best." + name.removeprefix("model.")], tensor)


def test_a_state_is_a_safetensors_file(tmp_path):
    """Any reader of the format can open it, and finds the epochs as JSON."""
    fit(fresh(), tmp_path / "state")
    with safe_open(tmp_path / "state", framework="pt") as file:
        assert len(json.loads(file.metadata()["training"])["history"]) == 4
        assert torch.equal(
            file.get_tensor("model.head.bias"), load((tmp_path / "state").read_bytes())["model.head.bias"]
        )


# A full disk


def test_a_full_disk_leaves_the_last_state(tmp_path):
    """On a file system with place for one state and no second, the first stays whole, and is gone on from elsewhere."""
    small, size = tmp_path / "small", len(run_epoch(fresh(), None))
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size * 3 // 2}", "tmpfs", str(small)]
    try:
        done = subprocess.run(mount, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount")
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted: {done.stderr.strip()}")
    try:
        wanted = r"state: cannot be written \(No space left on device\): needs [\d,]+ bytes\.\Z"
        with pytest.raises(InputError, match=wanted):
            fit(fresh(), small / "state")
        assert [path.name for path in small.iterdir()] == ["state"]
        state = (small / "state").read_bytes()
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert len(history(state)) == 1
    (tmp_path / "state").write_bytes(state)
    resumed, unbroken = fresh(), fresh()
    fit(resumed, tmp_path / "state")
    fit(unbroken)
    assert_same(numbers(resumed.module), numbers(unbroken.module))


def test_a_file_larger_than_allowed_leaves_the_old_one(tmp_path):
    """A limit on the size of files is said like a full disk, and nothing half is left."""
    path = tmp_path / "state"
    path.write_text("old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(InputError, match=r"state: cannot be written \(File too large\): needs 5,000 bytes\.\Z"):
            write_bytes(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("state", "old")]


# Devices


@pytest.mark.parametrize("name", ["gpu", "cuda:", "cuda:x", "CPU", "mps", ""])
def test_an_unknown_device_is_refused(name):
    """Trainings run on the CPU or on a CUDA device."""
    with pytest.raises(InputError, match=f"device: must be cpu, cuda or cuda:n, got '{name}'"):
        check_device(name)


def test_a_device_must_be_there(monkeypatch):
    """The message says how many there are."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(
        InputError, match=r"device 'cuda': must be there, got 0 CUDA devices that torch can use; try cpu"
    ):
        fit(fresh(), device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="device 'cuda:2': must be there, got 2"):
        check_device("cuda:2")
    assert check_device("cuda:1") == torch.device("cuda", 1)
    assert check_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("kind", REAL)
def test_losses_may_be_computed_in_bfloat16(monkeypatch, kind):
    """As on a GPU, but here: the loss is about that of float32, and what is trained stays float32."""
    exact, rough = [], []
    fit(real(kind), on_epoch=exact.append)
    monkeypatch.setattr(loop, "autocast", lambda device: torch.autocast(device.type, torch.bfloat16))
    training = real(kind)
    fit(training, on_epoch=rough.append)
    assert rough[0].loss == pytest.approx(exact[0].loss, rel=0.05)
    assert rough[0].loss != exact[0].loss
    assert {p.dtype for p in training.module.parameters()} == {torch.float32}

"""Training states: damaged ones, those of others, a full disk; and where trainings run."""

import json
import resource
import subprocess
from dataclasses import replace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from planner.errors import InputError, PlannerError
from planner.network import training as loop
from planner.network.training import Schedule, adopt, check_device, history, is_finished, run_epoch, train
from planner.schema.base import write_bytes
from tests.helpers.trainings import REAL, Scripted, assert_same, fresh, numbers, real

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
        train(fresh(), tmp_path / "state")
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
        train(fresh(), tmp_path)


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
    train(fresh(), tmp_path / "state")
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
            train(fresh(), small / "state")
        assert [path.name for path in small.iterdir()] == ["state"]
        state = (small / "state").read_bytes()
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert len(history(state)) == 1
    (tmp_path / "state").write_bytes(state)
    resumed, unbroken = fresh(), fresh()
    train(resumed, tmp_path / "state")
    train(unbroken)
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
        train(fresh(), device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="device 'cuda:2': must be there, got 2"):
        check_device("cuda:2")
    assert check_device("cuda:1") == torch.device("cuda", 1)
    assert check_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("kind", REAL)
def test_losses_may_be_computed_in_bfloat16(monkeypatch, kind):
    """As on a GPU, but here: the loss is about that of float32, and what is trained stays float32."""
    exact, rough = [], []
    train(real(kind), on_epoch=exact.append)
    monkeypatch.setattr(loop, "autocast", lambda device: torch.autocast(device.type, torch.bfloat16))
    training = real(kind)
    train(training, on_epoch=rough.append)
    assert rough[0].loss == pytest.approx(exact[0].loss, rel=0.05)
    assert rough[0].loss != exact[0].loss
    assert {p.dtype for p in training.module.parameters()} == {torch.float32}

"""Training states: damaged ones, those of other trainings, a full disk; and the device of a training."""

import json
import resource
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, save

from planner.errors import InputError, PlannerError
from planner.network import half_blocks, training_run
from planner.network.compute_device import in_mixed_precision, mixed_precision
from planner.network.training import (
    Epoch,
    Schedule,
    check_device,
    history,
    is_finished,
    load_best_weights,
    run_epoch,
    train,
)
from planner.schema.base import write_bytes
from tests.helpers.common import Json
from tests.helpers.plain_vit import State
from tests.helpers.trainings import LOSS_NAMES, Scripted, assert_same, make_task, numbers, task_with_loss

# States


def rewritten(
    content: bytes, change: Callable[[State], State] = lambda tensors: tensors, metadata: Json | None = None
) -> bytes:
    """Return a training state with other tensors or other metadata."""
    metadata = json.loads(header(content)["training"]) if metadata is None else metadata
    return save(change(load(content)), {"training": json.dumps(metadata)} if metadata else None)


def header(content: bytes) -> dict[str, str]:
    """Return a state's metadata."""
    metadata: dict[str, str] = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    return metadata


def without(state: State, name: str) -> State:
    """Return a state without a tensor."""
    return {key: tensor for key, tensor in state.items() if key != name}


DAMAGES = {
    "empty": lambda content: b"",
    "truncated": lambda content: content[: len(content) // 2],
    "text": lambda content: b"not a training state",
    "no weights": lambda content: rewritten(content, lambda s: without(s, "model.head.bias")),
    "another network's": lambda content: rewritten(content, lambda s: s | {"model.head.bias": torch.ones(7)}),
    "no metadata": lambda content: rewritten(content, metadata={}),
    "no history": lambda content: rewritten(content, metadata={"finished": False}),
    "no epochs": lambda content: rewritten(content, metadata={"finished": False, "history": []}),
    "an epoch of other keys": lambda content: rewritten(
        content, metadata={"finished": False, "history": [{"loss": 1}]}
    ),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_state_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    """A damaged state is refused with advice, whether it is to be resumed or adopted."""
    state = damage(run_epoch(make_task(), None))
    (tmp_path / "state").write_bytes(state)
    with pytest.raises(PlannerError, match=r"state: not a training state .*delete it to begin again"):
        train(make_task(), tmp_path / "state")
    for use in (load_best_weights, run_epoch):
        with pytest.raises(PlannerError, match=r"training 'vit': not a training state .*delete it to begin again"):
            use(make_task(), state)


def test_a_state_without_moments_is_refused() -> None:
    """Each parameter must have both moments, or none if it was never updated."""
    first = run_epoch(make_task(), run_epoch(make_task(), None))
    state = rewritten(first, lambda s: without(s, "moments.exp_avg.head.bias"))
    with pytest.raises(PlannerError, match=r"not a training state \('exp_avg.head.bias'\); delete it"):
        run_epoch(make_task(), state)


@pytest.mark.parametrize("of", [history, is_finished])
@pytest.mark.parametrize("content", [b"", b"not a training state", save({"a": torch.ones(1)})])
def test_a_damaged_header_is_refused(of: Callable[[bytes], object], content: bytes) -> None:
    """Reading the history needs the header alone, and a damaged one is refused."""
    with pytest.raises(PlannerError, match="not a training state"):
        of(content)


def test_a_state_of_another_training_is_refused() -> None:
    """A state must have the training's name and number of epochs, on which the learning rate depends."""
    state = run_epoch(make_task(), None)
    with pytest.raises(PlannerError, match=r"must be of 'vit' with 5 epochs, got \[\('vit', 4\)\]"):
        run_epoch(make_task(schedule=Schedule(5, 8)), state)
    with pytest.raises(PlannerError, match=r"must be of 'other' with 4 epochs, got \[\('vit', 4\)\]"):
        load_best_weights(replace(make_task(), name="other"), state)


def test_a_state_that_is_a_folder_is_refused(tmp_path: Path) -> None:
    """A state file that cannot be read is named."""
    with pytest.raises(PlannerError, match=r"not a training state .*Is a directory"):
        train(make_task(), tmp_path)


def test_a_state_holds_the_best_epoch_only_where_it_is_not_the_last() -> None:
    """The best weights are stored separately only when a later epoch was worse."""
    training = replace(make_task(num_validation=6), loss=Scripted([2.0, 3.0]))
    first = run_epoch(training, None)
    second = run_epoch(replace(training, loss=Scripted([3.0])), first)
    assert not [name for name in load(first) if name.startswith("best.")]
    found = load(second)
    for name, tensor in load(first).items():
        if name.startswith("model."):
            assert torch.equal(found["best." + name.removeprefix("model.")], tensor)


def test_a_state_is_a_safetensors_file(tmp_path: Path) -> None:
    """Any reader of the format can open a state and finds its epochs as JSON."""
    train(make_task(), tmp_path / "state")
    with safe_open(tmp_path / "state", framework="pt") as file:
        assert len(json.loads(file.metadata()["training"])["history"]) == 5
        assert torch.equal(
            file.get_tensor("model.head.bias"), load((tmp_path / "state").read_bytes())["model.head.bias"]
        )


# A full disk


def test_a_full_disk_leaves_the_last_state(tmp_path: Path) -> None:
    """On a file system with room for one state, the first one stays whole and can be resumed elsewhere."""
    small, size = tmp_path / "small", len(run_epoch(make_task(), run_epoch(make_task(), None)))
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
            train(make_task(), small / "state")
        assert [path.name for path in small.iterdir()] == ["state"]
        state = (small / "state").read_bytes()
    finally:
        subprocess.run(["umount", str(small)], check=True)
    assert [epoch.epoch for epoch in history(state)] == [0, 1]
    (tmp_path / "state").write_bytes(state)
    resumed, unbroken = make_task(), make_task()
    train(resumed, tmp_path / "state")
    train(unbroken)
    assert_same(numbers(resumed.module), numbers(unbroken.module))


def test_a_file_larger_than_allowed_leaves_the_old_one(tmp_path: Path) -> None:
    """A limit on file sizes is reported like a full disk, and the old file is left."""
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
def test_an_unknown_device_is_refused(name: str) -> None:
    """Trainings run on the CPU or on a CUDA device."""
    with pytest.raises(InputError, match=f"device: must be cpu, cuda or cuda:n, got '{name}'"):
        check_device(name)


def test_a_device_must_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says how many CUDA devices there are."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(
        InputError, match=r"device 'cuda': must be there, got 0 CUDA devices that torch can use; try cpu"
    ):
        train(make_task(), device="cuda")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="device 'cuda:2': must be there, got 2"):
        check_device("cuda:2")
    assert check_device("cuda:1") == torch.device("cuda", 1)
    assert check_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("loss_name", LOSS_NAMES)
def test_losses_may_be_computed_in_bfloat16(monkeypatch: pytest.MonkeyPatch, loss_name: str) -> None:
    """In bfloat16 the loss is close to that of float32, and parameters stay float32."""
    exact: list[Epoch] = []
    rough: list[Epoch] = []
    train(task_with_loss(loss_name), on_epoch=exact.append)
    in_bfloat16 = torch.autocast("cpu", torch.bfloat16)
    monkeypatch.setattr(training_run, "mixed_precision", lambda module, device: in_bfloat16)
    training = task_with_loss(loss_name)
    train(training, on_epoch=rough.append)
    assert rough[1].loss == pytest.approx(exact[1].loss, rel=0.05)
    assert rough[1].loss != exact[1].loss
    assert {p.dtype for p in training.module.parameters()} == {torch.float32}


@pytest.mark.parametrize(
    ("units", "width", "expected"),
    [(True, 256, True), (True, 255, False), (False, 256, False), (None, 256, False)],
    ids=["matrix units and a large weight", "no large weight", "no matrix units", "a torch that does not tell"],
)
def test_a_cpu_trains_large_networks_in_bfloat16_where_it_has_matrix_units(
    monkeypatch: pytest.MonkeyPatch, units: bool | None, width: int, expected: bool
) -> None:
    """Both are needed: conversions of small weights take longer than they save."""
    if units is None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    else:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"amx_bf16": units}, raising=False)
    module, x = torch.nn.Linear(width, 256), torch.ones(1, width)
    with mixed_precision(module, torch.device("cpu")):
        assert module(x).dtype == (torch.bfloat16 if expected else torch.float32)
    assert module(x).dtype == torch.float32
    assert in_mixed_precision(module, module)(x).dtype == torch.float32
    assert torch.equal(in_mixed_precision(module, module)(x), module(x)) != expected


def test_attention_in_bfloat16_is_that_of_float32() -> None:
    """Values and gradients are those of torch's own attention in float32, up to eight bits of precision."""
    queries, keys, values = torch.randn(3, 2, 3, 5, 8).unbind()
    results = []
    for in_bfloat16 in (False, True):
        inputs = [part.clone().requires_grad_() for part in (queries, keys, values)]
        with torch.autocast("cpu", torch.bfloat16, enabled=in_bfloat16):
            attended = half_blocks.attend(*inputs)
        attended.float().square().sum().backward()
        results.append([attended.detach().float(), *(part.grad for part in inputs)])
    for exact, rough in zip(*results, strict=True):
        torch.testing.assert_close(rough, exact, rtol=0.05, atol=0.03)
        assert not torch.equal(rough, exact)

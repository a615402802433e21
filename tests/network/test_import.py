"""Anyone's checkpoint becomes a model with the same answers, or is refused in a sentence."""

import dataclasses
import hashlib
import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner

from planner.cli import app
from planner.errors import InputError
from planner.network.checkpoint import load_model
from planner.network.importing import import_checkpoint
from planner.network.vit import Shape, VisionTransformer
from planner.schema import ModelCard, read_document
from tests.helpers import foreign_names
from tests.helpers.plain_vit import ones, plain_features, plain_logits, random_images, random_model

PLAIN = Shape(6, 2, 3, 5, embed_dim=12, head_dim=3, num_heads=(4, 4), hidden_dim=(7, 7))
DISTILLED = dataclasses.replace(PLAIN, distilled=True)


def write(path, tensors, wrapper=None):
    """Write tensors in the format of a path's suffix, in a dict of one key if a wrapper is given."""
    if path.suffix == ".safetensors":
        save_file(tensors, path)
    elif path.suffix == ".npz":
        np.savez(path, **{name: tensor.numpy() for name, tensor in tensors.items()})
    else:
        torch.save(tensors if wrapper is None else {wrapper: tensors}, path)
    return path


def assert_same_answers(model, other):
    """Two networks of the same shape give the same logits, bit for bit."""
    images = random_images(model.shape, 3)
    with torch.inference_mode():
        assert torch.equal(model(images), other(images))


@pytest.mark.parametrize(
    ("naming", "shape", "file", "wrapper"),
    [
        ("timm", PLAIN, "a.safetensors", None),
        ("timm", PLAIN, "a.pt", "state_dict"),
        ("timm", DISTILLED, "a.pth", "model"),
        ("timm", DISTILLED, "a.npz", None),
        ("huggingface", PLAIN, "a.bin", None),
        ("huggingface", DISTILLED, "a.safetensors", None),
        ("torchvision", PLAIN, "a.pth", None),
        ("old_torchvision", PLAIN, "a.npz", None),
    ],
)
def test_an_imported_model_gives_the_same_logits(tmp_path, naming, shape, file, wrapper):
    """Every naming scheme, file format and wrapper: the model read back is the one written, sizes and all."""
    if naming == "huggingface":
        shape = dataclasses.replace(shape, layer_norm_eps=1e-12)
    model = random_model(shape)
    source = write(tmp_path / file, getattr(foreign_names, naming)(model), wrapper)
    import_checkpoint(source, tmp_path / "mine", num_heads=4)
    card, loaded = load_model(str(tmp_path / "mine" / "card.json"))
    assert loaded.shape == shape
    assert card.model == "mine"
    assert card.classes == ("0", "1", "2", "3", "4")
    assert card.origin.file == file
    assert_same_answers(model, loaded)


@pytest.mark.parametrize("eps", [1e-6, 1e-2])
def test_a_distilled_model_is_plain_arithmetic(eps):
    """Logits are the mean of both head layers on their own tokens, features the mean of both tokens."""
    model = random_model(dataclasses.replace(DISTILLED, layer_norm_eps=eps)).double()
    images, masks = random_images(DISTILLED, 3).double(), ones(DISTILLED)
    torch.testing.assert_close(model(images), plain_logits(model, images, *masks), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(model.features(images), plain_features(model, images, *masks), rtol=1e-9, atol=1e-10)


def test_torchvisions_attention_is_ours():
    """torch's own MultiheadAttention, which torchvision uses, gives what ours gives for the same tensors."""
    model = random_model(PLAIN)
    ours, theirs = model.blocks[0].attn, nn.MultiheadAttention(12, 4, batch_first=True).eval()
    names = {"in_proj_weight": ours.qkv.weight, "in_proj_bias": ours.qkv.bias}
    names |= {"out_proj.weight": ours.proj.weight, "out_proj.bias": ours.proj.bias}
    theirs.load_state_dict(names)
    x = torch.randn(2, 10, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x, x, x, need_weights=False)[0])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_become_float32(tmp_path, dtype):
    """The weights are those that the shorter or longer numbers stand for."""
    state = {name: tensor.to(dtype) for name, tensor in random_model(PLAIN).state_dict().items()}
    import_checkpoint(write(tmp_path / "a.safetensors", state), tmp_path / "mine", num_heads=4)
    weights = load_file(tmp_path / "mine" / "weights.safetensors")
    assert all(tensor.dtype == torch.float32 for tensor in weights.values())
    assert all(torch.equal(weights[name], tensor.float()) for name, tensor in state.items())


# Cards that keep a checkpoint's own names


def card_of(tmp_path, model, file, names):
    """Write a card beside a checkpoint in the card's folder, its hash included; return the card's path."""
    s = model.shape
    card = {
        "model": "mine",
        "description": "",
        "architecture": {
            "image_size": s.image_size,
            "patch_size": s.patch_size,
            "in_channels": s.in_channels,
            "embed_dim": s.embed_dim,
            "depth": s.depth,
            "num_heads": s.num_heads[0],
            "head_dim": s.head_dim,
            "hidden_dim": s.hidden_dim[0],
            "distilled": s.distilled,
        },
        "classes": s.num_classes,
        "weights": file.name,
        "weights_sha256": hashlib.sha256(file.read_bytes()).hexdigest(),
        "parameter_names": names,
    }
    path = tmp_path / "card.json"
    path.write_text(json.dumps(card))
    return str(path)


@pytest.mark.parametrize(
    ("naming", "names", "shape"),
    [
        ("timm", "timm", DISTILLED),
        ("huggingface", "huggingface", PLAIN),
        ("huggingface", "huggingface", DISTILLED),
        ("torchvision", "torchvision", PLAIN),
        ("old_torchvision", "torchvision", PLAIN),
    ],
)
def test_a_card_may_name_its_files_scheme(tmp_path, naming, names, shape):
    """A checkpoint stays as it is where its card says whose names it has."""
    model = random_model(shape)
    file = write(tmp_path / "a.pth", getattr(foreign_names, naming)(model))
    assert_same_answers(model, load_model(card_of(tmp_path, model, file, names))[1])


def own_names(model):
    """Return tensors under names of one's own, q, k and v apart, and the map that a card would have."""
    state = {}
    for name, tensor in model.state_dict().items():
        if name.endswith("attn.qkv.weight"):
            l = name.split(".")[1]
            state |= dict(zip((f"enc.{l}.q.w", f"enc.{l}.k.w", f"enc.{l}.v.w"), tensor.chunk(3), strict=True))
        elif name.endswith("attn.qkv.bias"):
            state[f"enc.{name.split('.')[1]}.qkv.b"] = tensor
        else:
            state["pos" if name == "pos_embed" else name] = tensor
    return state, {
        "pos_embed": "pos",
        "blocks.{l}.attn.qkv.weight": ["enc.{l}.q.w", "enc.{l}.k.w", "enc.{l}.v.w"],
        "blocks.{l}.attn.qkv.bias": "enc.{l}.qkv.b",
    }


def test_a_card_may_map_names_of_its_own(tmp_path):
    """What the map names is found under that name, in one tensor or in three, and the rest under ours."""
    model = random_model(PLAIN)
    state, names = own_names(model)
    file = write(tmp_path / "a.pth", {name: tensor.clone() for name, tensor in state.items()})
    assert_same_answers(model, load_model(card_of(tmp_path, model, file, names))[1])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pos_embd": "pos"}, r"'pos_embd' is no parameter of the network; did you mean 'pos_embed'\?"),
        ({"blocks.0.norm1.weight": "x"}, r"'blocks\.0\.norm1\.weight' is no parameter"),
        ({"head.weight": ["a", "b", "c"]}, "'head.weight' must have one name.*only qkv has three"),
        ({"head.weight": "head.bias"}, "'head.bias' must be one parameter, got 'head.weight' and 'head.bias'"),
        ({"blocks.{l}.norm1.weight": "n"}, r"'n' must be one parameter, got 'blocks\.0.*' and 'blocks\.1"),
        ({"blocks.{l}.attn.qkv.weight": ["q", "q", "v"]}, "'q' must be one parameter"),
        ({"head.weight": 3}, r"parameter_names: head\.weight must be a valid string"),
        ("tim", "parameter_names must be 'timm', 'huggingface' or 'torchvision'"),
    ],
)
def test_a_map_that_makes_no_sense_is_refused(tmp_path, change, message):
    """A name that is none of ours, twice the same, or three for what is one: each named."""
    model = random_model(PLAIN)
    file = write(tmp_path / "a.pth", model.state_dict())
    with pytest.raises(InputError, match=message) as error:
        load_model(card_of(tmp_path, model, file, change))
    assert "\n" not in str(error.value)


# What is refused


def imported(tmp_path, tensors, num_heads=4, file="a.pth", **options):
    """Import tensors from a file."""
    return import_checkpoint(write(tmp_path / file, tensors), tmp_path / "mine", num_heads, **options)


@pytest.mark.parametrize(
    ("naming", "change", "message"),
    [
        ("huggingface", {"vit.layernorm.bias": None}, "tensor 'vit.layernorm.bias' is missing"),
        (
            "huggingface",
            {"vit.encoder.layer.1.attention.attention.key.bias": torch.ones(11)},
            r"'vit\.encoder\.layer\.1\.attention\.attention\.key\.bias' must have shape \(12,\), got \(11,\)",
        ),
        ("huggingface", {"vit.pooler.dense.bias": torch.ones(12)}, "'vit.pooler.dense.bias' belongs to no part"),
        ("torchvision", {"encoder.ln.bias": torch.full((12,), torch.nan)}, "'encoder.ln.bias' must hold finite"),
        ("torchvision", {"heads.head.bias": torch.full((5,), -torch.inf)}, "'heads.head.bias' must hold finite"),
        ("torchvision", {"conv_proj.weight": torch.ones(12, 3, 2)}, r"'conv_proj.weight' must have 4 dimensions"),
        ("timm", {"blocks.1.norm1.weight": None}, "tensor 'blocks.1.* belongs to no part"),
        ("timm", {"blocks.0.norm1.weight": None}, "tensor 'blocks.0.norm1.weight' is missing"),
        ("timm", {"blocks.1.mlp.fc1.bias": torch.ones(8)}, r"'blocks.1.mlp.fc1.bias' must have shape \(7,\)"),
        ("timm", {"head.bias": torch.ones(5, dtype=torch.int64)}, "'head.bias' must hold floating-point.*int64"),
        ("timm", {"pos_embed": torch.ones(1, 9, 12)}, r"'pos_embed' must have 1 \+ a square of tokens, got 9"),
        ("timm", {"pos_embed": torch.ones(1, 1, 12)}, r"'pos_embed' must have 1 \+ a square of tokens, got 1"),
        ("timm", {"dist_token": torch.ones(1, 1, 12)}, "has a distillation token, but no head layer .*'head_dist"),
        ("timm", {"norm.weight": torch.full((12,), 3e38)}, "must answer an image with finite logits"),
        ("timm", {"cls_token": None}, "names must be those of timm, DeiT.*parameter_names"),
        ("timm", {"epoch": 3}, "must map names to tensors, got int at 'epoch'"),
    ],
)
def test_another_network_is_refused(tmp_path, naming, change, message):
    """What is missing, left over, of another shape or no number is named as the file names it, in a sentence."""
    state = getattr(foreign_names, naming)(random_model(PLAIN)) | change
    state = {name: value for name, value in state.items() if value is not None}
    with pytest.raises(InputError, match=message) as error:
        imported(tmp_path, state)
    text = str(error.value)
    assert text.startswith(f"{tmp_path / 'a.pth'}: ")
    assert "\n" not in text
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("embed_dim", "head_dim", "heads", "message"),
    [
        (12, 3, None, r"give it as --num-heads\.$"),
        (128, 64, None, "with the usual head dim of 64 it would be --num-heads 2"),
        (12, 3, 5, "--num-heads must divide 12, the width of the queries, got 5"),
        (12, 3, 0, "--num-heads must divide 12.*got 0"),
    ],
)
def test_the_number_of_heads_is_asked_for(tmp_path, embed_dim, head_dim, heads, message):
    """It does not show in the weights and is not guessed; where the usual head dim fits, that is proposed."""
    shape = dataclasses.replace(PLAIN, embed_dim=embed_dim, head_dim=head_dim, num_heads=(embed_dim // head_dim,) * 2)
    with pytest.raises(InputError, match=message):
        imported(tmp_path, random_model(shape).state_dict(), heads)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["a", "b"]}, "has 5 classes, got names for 2"),
        ({"classes": list("abcda")}, "names must differ, 'a' is given twice"),
        ({"classes": ["a", "b", "", "d", "e"]}, "classes: 2: .*at least 1 character"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps: .*greater than 0, got 0.0"),
        ({"layer_norm_eps": float("nan")}, "layer_norm_eps: .*got nan"),
    ],
)
def test_options_that_do_not_go_with_the_weights_are_refused(tmp_path, options, message):
    """Another number of names, a name twice, an epsilon of nothing."""
    with pytest.raises(InputError, match=message):
        imported(tmp_path, random_model(PLAIN).state_dict(), **options)


def test_a_folder_that_holds_something_is_left_alone(tmp_path):
    """An earlier model is not written over."""
    imported(tmp_path, random_model(PLAIN).state_dict())
    before = (tmp_path / "mine" / "card.json").read_bytes()
    with pytest.raises(InputError, match="mine: must be a new or an empty folder"):
        imported(tmp_path, random_model(PLAIN, seed=1).state_dict())
    assert (tmp_path / "mine" / "card.json").read_bytes() == before


class Bomb:
    """What would write a file if it were unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("old_format", [False, True])
@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin"])
def test_a_pickle_bomb_is_refused_and_not_executed(tmp_path, suffix, old_format):
    """A checkpoint that would run something when unpickled is refused, and nothing runs."""
    trace, path = tmp_path / "executed", tmp_path / f"bomb{suffix}"
    content = random_model(PLAIN).state_dict() | {"x": Bomb(trace)}
    if old_format:
        path.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, path)
    with pytest.raises(InputError, match="must be a checkpoint of tensors and nothing else") as error:
        import_checkpoint(path, tmp_path / "mine", 4)
    assert "\n" not in str(error.value)
    assert not trace.exists()
    # The bomb is live: unpickling it outright would have left its trace.
    pickle.loads(pickle.dumps(Bomb(trace)))
    assert trace.exists()


def test_an_array_of_objects_is_refused_and_not_executed(tmp_path):
    """An .npz that would have to be unpickled is refused, and nothing runs."""
    trace, path = tmp_path / "executed", tmp_path / "bomb.npz"
    np.savez(path, cls_token=np.array([Bomb(trace)], dtype=object))
    with pytest.raises(InputError, match=r"must be an \.npz file of plain arrays"):
        import_checkpoint(path, tmp_path / "mine", 4)
    assert not trace.exists()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("a.pth", b"", "must be a checkpoint of tensors"),
        ("a.pth", b"PK\x03\x04 no archive", "must be a checkpoint of tensors"),
        ("a.npz", b"no archive", r"must be an \.npz file"),
        ("a.npz", b"", r"must be an \.npz file"),
        ("a.safetensors", b"", "must be a safetensors file"),
        ("a.h5", b"", r"must be a \.safetensors, \.pth, \.pt, \.bin, \.npz file, got \.h5"),
        ("a", b"", "got no suffix"),
    ],
)
def test_a_file_of_no_known_format_is_refused(tmp_path, file, content, message):
    """Empty, damaged or foreign files are named, whatever their suffix promises."""
    (tmp_path / file).write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        import_checkpoint(tmp_path / file, tmp_path / "mine", 4)
    assert "\n" not in str(error.value)


def test_lone_objects_are_refused(tmp_path):
    """A file that holds a tensor, or an array, and no names for it."""
    torch.save(torch.ones(3), tmp_path / "a.pt")
    with pytest.raises(InputError, match="must map names to tensors, got Tensor"):
        import_checkpoint(tmp_path / "a.pt", tmp_path / "mine", 4)
    with (tmp_path / "a.npz").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(InputError, match=r"must be an \.npz file of plain arrays"):
        import_checkpoint(tmp_path / "a.npz", tmp_path / "mine", 4)


# The command


def planner(*args, columns=80):
    """Run a command in this process, at 80 columns."""
    return CliRunner().invoke(app, [str(arg) for arg in args], env={"COLUMNS": str(columns)})


@pytest.mark.parametrize("as_file", [False, True])
def test_the_command_says_what_it_found(tmp_path, as_file):
    """A table that fits 80 columns, a model with the classes' names, and what to do next."""
    source = write(tmp_path / "a.pth", foreign_names.timm(random_model(DISTILLED)), "model")
    names = ["tench", "goldfish", "great white shark", "ray", "cock"]
    given = ",".join(names)
    if as_file:
        given = str(tmp_path / "names.txt")
        Path(given).write_text("\n".join(names) + "\n")
    out = tmp_path / "mine"
    result = planner("import", source, "--out", out, "--num-heads", 4, "--classes", given, "--layer-norm-eps", "1e-5")
    assert result.exit_code == 0, result.stderr
    params = sum(p.numel() for p in VisionTransformer(DISTILLED).parameters())
    for found in ("2, distilled", "4 of dim 3", "6 x 6 pixels, 3 channels", "epsilon 1e-05", "tench", f"{params:,}"):
        assert found in result.stdout
    assert "add `data` and `preprocessing`" in result.stdout
    table = [line for line in result.stdout.splitlines() if line.startswith(("┌", "│", "└", "┃", "┏"))]
    assert table
    assert max(map(len, table)) <= 80
    card = read_document(out / "card.json", ModelCard)
    assert card.classes == tuple(names)
    assert card.architecture.layer_norm_eps == 1e-5
    assert (card.data, card.preprocessing, card.training, card.accuracy) == (None, None, None, None)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["none.pth", "--num-heads", "4"], "none.pth: cannot be read (No such file or directory)."),
        (["a.pth"], "give it as --num-heads"),
        (["a.pth", "--num-heads", "4", "--classes", "none.txt"], "none.txt: no such file."),
        (["a.pth", "--num-heads", "4", "--classes", "empty.txt"], "must hold a class name on each line, got none"),
        (["a.pth", "--num-heads", "4", "--classes", "a,b"], "has 5 classes, got names for 2"),
    ],
)
def test_the_command_refuses_in_a_sentence(tmp_path, monkeypatch, args, message):
    """One line on stderr, nothing on stdout, exit code 2, and no folder."""
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "a.pth", random_model(PLAIN).state_dict())
    (tmp_path / "empty.txt").touch()
    result = planner("import", *args, "--out", "mine")
    assert result.exit_code == 2
    assert result.stdout == ""
    assert message in result.stderr
    assert len(result.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "mine").exists()

"""The network, its data, its losses, its fusion and its training loop, each against something simpler."""

import hashlib
import math
import shutil
import sys

import numpy as np
import pytest
import torch
from plain_vit import ones, plain_features, plain_logits, random_images, random_model
from safetensors.torch import load, load_file, save, save_file
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from planner.errors import InputError, PlannerError
from planner.network import data
from planner.network.checkpoint import find_card, load_card, load_model, load_weights
from planner.network.data import Jitter, Samples
from planner.network.distil import distillation_loss, log_own_and_other, own_and_other_labels, soft_loss
from planner.network.evaluate import accuracy, batched, share_right, share_right_by_class
from planner.network.fusion import Fusion
from planner.network.training import Recipe, fit
from planner.network.vit import Attention, Shape, VisionTransformer, initialise
from planner.schema.base import write_bytes

SHAPE = Shape(4, 2, 2, 3, embed_dim=8, head_dim=4, num_heads=(2, 0, 1), hidden_dim=(5, 3, 0))


def generator(seed=0):
    """Return a seeded generator."""
    return torch.Generator().manual_seed(seed)


# The network


def test_parameter_names_are_timms():
    """A checkpoint of timm's VisionTransformer of depth 1 has exactly these names."""
    model = VisionTransformer(Shape(4, 2, 1, 3, 8, 4, (2,), (5,)))
    assert sorted(model.state_dict()) == [
        "blocks.0.attn.proj.bias",
        "blocks.0.attn.proj.weight",
        "blocks.0.attn.qkv.bias",
        "blocks.0.attn.qkv.weight",
        "blocks.0.mlp.fc1.bias",
        "blocks.0.mlp.fc1.weight",
        "blocks.0.mlp.fc2.bias",
        "blocks.0.mlp.fc2.weight",
        "blocks.0.norm1.bias",
        "blocks.0.norm1.weight",
        "blocks.0.norm2.bias",
        "blocks.0.norm2.weight",
        "cls_token",
        "head.bias",
        "head.weight",
        "norm.bias",
        "norm.weight",
        "patch_embed.proj.bias",
        "patch_embed.proj.weight",
        "pos_embed",
    ]


def test_parameter_shapes_are_timms():
    """A timm checkpoint's tensors fit: convolution for the patches, Q, K and V in one, a class token's position."""
    state = VisionTransformer(Shape(224, 16, 3, 1000, 192, 64, (3,), (768,))).state_dict()
    assert state["patch_embed.proj.weight"].shape == (192, 3, 16, 16)
    assert state["cls_token"].shape == (1, 1, 192)
    assert state["pos_embed"].shape == (1, 197, 192)
    assert state["blocks.0.attn.qkv.weight"].shape == (576, 192)
    assert state["blocks.0.attn.proj.weight"].shape == (192, 192)
    assert state["blocks.0.mlp.fc1.weight"].shape == (768, 192)
    assert state["blocks.0.mlp.fc2.weight"].shape == (192, 768)
    assert state["head.weight"].shape == (1000, 192)


def test_an_empty_half_has_no_parameters():
    """A block without heads has no attention tensors and no first norm, one without channels no MLP tensors."""
    names = VisionTransformer(SHAPE).state_dict()
    assert not [name for name in names if name.startswith(("blocks.1.attn", "blocks.1.norm1"))]
    assert not [name for name in names if name.startswith(("blocks.2.mlp", "blocks.2.norm2"))]


def test_network_equals_plain_arithmetic():
    """Features and logits are those of a forward pass written out with matrix products alone."""
    model, images = random_model(SHAPE).double(), random_images(SHAPE, 3).double()
    masks = ones(SHAPE)
    torch.testing.assert_close(model.features(images), plain_features(model, images, *masks), rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(model(images), plain_logits(model, images, *masks), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 1), (3, 4), (4, 16)])
def test_fused_attention_equals_plain(heads, head_dim):
    """An attention module gives the softmax of Q K^T / sqrt(hd) times V, projected, one head after the other."""
    E, N = 10, 7
    attention = Attention(E, heads, head_dim).double()
    x = torch.randn(2, N, E, generator=generator(), dtype=torch.float64)
    expected = attention.proj.bias.expand(2, N, E)
    for h in range(heads):
        rows = torch.arange(h * head_dim, (h + 1) * head_dim)
        weights, biases = attention.qkv.weight, attention.qkv.bias
        q, k, v = (x @ weights[at].T + biases[at] for at in (rows + part * heads * head_dim for part in range(3)))
        weight = (q @ k.transpose(1, 2) / math.sqrt(head_dim)).softmax(-1)  # (B, N, N)
        expected = expected + weight @ v @ attention.proj.weight[:, rows].T
    torch.testing.assert_close(attention(x), expected, rtol=1e-10, atol=1e-11)


def test_the_fused_kernel_equals_the_unfused_one():
    """Torch's fused kernel and its plain one give the same logits in float32, to 1e-5 of their scale."""
    model, images = random_model(SHAPE), random_images(SHAPE, 3)
    with torch.no_grad():
        fused = model(images)
        with sdpa_kernel([SDPBackend.MATH]):
            plain = model(images)
    assert (fused - plain).abs().max() <= 1e-5 * plain.abs().max()


def test_a_network_without_heads_and_channels_runs():
    """With every half empty the class token never meets the image: all images get the same finite answer."""
    shape = Shape(4, 2, 1, 3, 8, 4, (0, 0), (0, 0))
    model = random_model(shape)
    logits = model(random_images(shape, 5))
    assert logits.shape == (5, 3)
    assert torch.isfinite(logits).all()
    assert torch.equal(logits, logits[:1].expand(5, -1))
    assert not [name for name in model.state_dict() if name.startswith("blocks.")]


def test_gates_multiply_the_output_of_their_unit():
    """A gate of 0.3 on a head or a channel is 0.3 times its output, for each image its own."""
    shape = Shape(4, 2, 1, 3, 8, 4, (2, 1), (3, 2))
    model, images = random_model(shape).double(), random_images(shape, 2).double()
    draws = [
        (torch.rand(2, h, generator=generator(h)), torch.rand(2, c, generator=generator(c)))
        for h, c in zip(shape.num_heads, shape.hidden_dim, strict=True)
    ]
    gates = [(heads.double(), channels.double()) for heads, channels in draws]
    got = model(images, gates)
    for b in range(2):
        masks = [heads[b] for heads, _ in gates], [channels[b] for _, channels in gates]
        torch.testing.assert_close(
            got[b : b + 1], plain_logits(model, images[b : b + 1], *masks), rtol=1e-9, atol=1e-10
        )


def test_fresh_weights_are_the_seeds():
    """The same seed draws the same weights, another seed others; biases are zero and norms the identity."""
    first, same, other = VisionTransformer(SHAPE), VisionTransformer(SHAPE), VisionTransformer(SHAPE)
    for model, seed in ((first, 0), (same, 0), (other, 1)):
        initialise(model, generator(seed))
    assert all(torch.equal(p, q) for p, q in zip(first.parameters(), same.parameters(), strict=True))
    assert not torch.equal(first.head.weight, other.head.weight)
    assert not first.head.bias.any()
    assert torch.equal(first.norm.weight, torch.ones(8))
    assert first.cls_token.any()


# The shipped model and its data


@pytest.fixture(scope="module")
def digits():
    """The shipped digits ViT and both parts of its data."""
    pytest.importorskip("sklearn")
    card, model = load_model("digits-vit")
    return card, model, data.load(card, "train"), data.load(card, "test")


def test_the_shipped_model_is_as_accurate_as_its_card_says(digits):
    """The digits ViT is right on at least 97 % of the test part, and its card states the accuracies to four digits."""
    card, model, train, test = digits
    assert not model.training
    assert round(accuracy(model, test), 4) == card.accuracy["test"] >= 0.97
    assert round(accuracy(model, train), 4) == card.accuracy["train"]


def test_the_split_is_a_partition(digits):
    """Train and test together are scikit-learn's 1,797 images, each exactly once."""
    from sklearn.datasets import load_digits

    card, _, train, test = digits
    assert len(train) + len(test) == 1797
    pre = card.preprocessing
    both = torch.cat([train.images, test.images]).flatten(1) * pre.std[0] + pre.mean[0]
    got = np.column_stack([both / pre.scale, torch.cat([train.labels, test.labels])])
    source = load_digits()
    expected = np.column_stack([source.data, source.target])
    got, expected = (np.array(sorted(np.rint(rows).tolist())) for rows in (got, expected))
    np.testing.assert_array_equal(got, expected)


def test_the_split_is_stratified(digits):
    """Each class has the same share of its images in the test part, to the image."""
    card, _, train, test = digits
    in_test, in_train = (torch.bincount(part.labels, minlength=10).double() for part in (test, train))
    assert ((in_test - card.data.test_share * (in_test + in_train)).abs() <= 1).all()


def test_the_split_is_the_same_every_time(digits):
    """Loading a part again gives the same images in the same order."""
    card, _, train, test = digits
    for part, known in (("train", train), ("test", test)):
        again = data.load(card, part)
        assert torch.equal(again.images, known.images)
        assert torch.equal(again.labels, known.labels)


def test_training_images_are_standardised(digits):
    """Preprocessed pixels of the train part have mean 0 and spread 1: the card's numbers are theirs."""
    images = digits[2].images
    assert images.dtype == torch.float32
    assert images.shape[1:] == (1, 8, 8)
    assert abs(images.mean()) < 0.01
    assert abs(images.std() - 1) < 0.01


def test_holdout_splits_once_more(digits):
    """A holdout is stratified and disjoint from the rest, the same for a seed and another for another."""
    labels = digits[2].labels
    numbered = Samples(torch.arange(len(labels)), labels)
    kept, held = data.holdout(numbered, 0.25, seed=0)
    assert sorted(torch.cat([kept.images, held.images]).tolist()) == list(range(len(labels)))
    assert torch.equal(held.labels, labels[held.images])
    share = torch.bincount(held.labels) / torch.bincount(labels)
    assert ((share - 0.25).abs() < 0.01).all()
    assert torch.equal(data.holdout(numbered, 0.25, seed=0)[1].images, held.images)
    assert not torch.equal(data.holdout(numbered, 0.25, seed=1)[1].images, held.images)


def test_without_scikit_learn_the_data_says_what_to_install(monkeypatch):
    """Where scikit-learn is missing, the message names the extra that brings it."""
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(InputError, match=r"needs scikit-learn.*vit-planner\[data\]"):
        data.load(load_card("digits-vit"), "test")


# Answers and accuracies


def test_batches_do_not_matter():
    """More images than fit a batch are answered as if they all did, without gradients but usable in a training."""
    weight = torch.ones(2, 3, requires_grad=True)
    answers = batched(lambda images: images @ weight, torch.arange(1400.0).view(700, 2))
    assert torch.equal(answers, torch.arange(1400.0).view(700, 2) @ weight)
    assert not answers.requires_grad
    (answers * weight.sum()).sum().backward()


def test_shares_that_are_right():
    """Of four answers 0, 1, 1, 1 to labels 0, 0, 1, 1, three are right: half of class 0, all of class 1."""
    logits = torch.tensor([[2.0, 1.0], [0.0, 1.0], [-2.0, -1.0], [0.0, 5.0]])
    labels = torch.tensor([0, 0, 1, 1])
    assert share_right(logits, labels) == 0.75
    assert share_right_by_class(logits, labels) == [0.5, 1.0]


# Checkpoints


@pytest.fixture
def checkpoint(tmp_path):
    """Write tensors as a file; return its path and its hash."""

    def write(tensors):
        path = tmp_path / "weights.safetensors"
        save_file(tensors, path)
        return path, hashlib.sha256(path.read_bytes()).hexdigest()

    return write


def assert_sentence(error, path):
    """A complaint about a file is one line that begins with the file and ends as a sentence does."""
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert message[-1] in ".?", message


def test_weights_are_read_back(checkpoint):
    """What was written is what is loaded, and the model is ready to answer."""
    source, target = random_model(SHAPE), VisionTransformer(SHAPE).train()
    load_weights(*_swap(target, checkpoint(source.state_dict())))
    assert not target.training
    assert all(torch.equal(tensor, source.state_dict()[name]) for name, tensor in target.state_dict().items())


def _swap(model, written):
    path, sha256 = written
    return path, model, sha256


def without(state, name):
    """Return a state without a tensor."""
    return {key: tensor for key, tensor in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: without(s, "blocks.0.attn.proj.bias"), "tensor 'blocks.0.attn.proj.bias' is missing"),
        (lambda s: s | {"head.weigth": torch.ones(1)}, "tensor 'head.weigth' belongs to no part.*'head.weight'"),
        (lambda s: s | {"zzz": torch.ones(1)}, "tensor 'zzz' belongs to no part of the network"),
        (
            lambda s: s | {"head.weight": torch.ones(4, 8)},
            r"tensor 'head.weight' must have shape \(3, 8\), got \(4, 8\)",
        ),
        (lambda s: s | {"norm.bias": torch.full((8,), math.nan)}, "tensor 'norm.bias' must hold finite numbers"),
        (lambda s: s | {"pos_embed": torch.full((1, 5, 8), math.inf)}, "tensor 'pos_embed' must hold finite numbers"),
    ],
    ids=["missing", "extra, nearly known", "extra", "another shape", "NaN", "infinity"],
)
def test_weights_of_another_network_are_refused(checkpoint, change, message):
    """A tensor that is missing, left over, of another shape or not finite is named in one sentence."""
    path, sha256 = checkpoint(change(random_model(SHAPE).state_dict()))
    with pytest.raises(InputError, match=message) as error:
        load_weights(path, VisionTransformer(SHAPE), sha256)
    assert_sentence(error, path)


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_a_truncated_file_is_refused(checkpoint, keep):
    """A file that ends too early is named, even where its hash is the expected one."""
    path, _ = checkpoint(random_model(SHAPE).state_dict())
    content = path.read_bytes()[:keep]
    path.write_bytes(content)
    with pytest.raises(InputError, match="must be a safetensors file") as error:
        load_weights(path, VisionTransformer(SHAPE), hashlib.sha256(content).hexdigest())
    assert_sentence(error, path)


def test_a_changed_file_is_refused(checkpoint):
    """One changed byte changes the hash, and both hashes are shown."""
    path, sha256 = checkpoint(random_model(SHAPE).state_dict())
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(InputError, match=f"SHA-256 must be {sha256[:12]}.*got .*changed") as error:
        load_weights(path, VisionTransformer(SHAPE), sha256)
    assert_sentence(error, path)


def test_a_missing_file_is_refused(tmp_path):
    """A file that is not there is named."""
    with pytest.raises(InputError, match="cannot be read") as error:
        load_weights(tmp_path / "none.safetensors", VisionTransformer(SHAPE), "")
    assert_sentence(error, tmp_path / "none.safetensors")


def test_a_model_that_is_refused_keeps_its_weights(checkpoint):
    """Nothing is loaded from a file with one bad tensor."""
    model = random_model(SHAPE)
    state = random_model(SHAPE, seed=7).state_dict()
    path, sha256 = checkpoint(state | {"pos_embed": torch.ones(1)})
    with pytest.raises(InputError, match="'pos_embed' must have shape"):
        load_weights(path, model, sha256)
    assert torch.equal(model.head.weight, random_model(SHAPE).head.weight)


def test_a_card_of_one_s_own_is_read_by_its_path(tmp_path):
    """A card beside its weights anywhere is a model; weights that are not the card's are refused."""
    folder = shutil.copytree(find_card("digits-vit").parent, tmp_path / "mine")
    card, model = load_model(str(folder / "card.json"))
    assert model.shape.embed_dim == card.architecture.embed_dim
    weights = folder / card.weights
    write_bytes(weights, save({name: tensor * 2 for name, tensor in load_file(weights).items()}))
    with pytest.raises(InputError, match=r"weights\.safetensors: SHA-256 must be"):
        load_model(str(folder / "card.json"))


def test_an_unknown_model_is_refused_with_the_nearest():
    """A misspelled model's name gets the names there are and the nearest of them."""
    with pytest.raises(InputError, match=r"one of digits-vit.*got 'digit-vit'; did you mean 'digits-vit'\?"):
        load_model("digit-vit")


def test_an_unknown_model_is_refused_in_a_sentence():
    """Where no known model's name is near, the complaint ends with a full stop."""
    with pytest.raises(InputError, match=r"got 'xyz'\.$"):
        load_model("xyz")


# Losses


LOGITS = torch.tensor([[2.0, -1.0, 0.5, 0.0], [0.0, 3.0, -2.0, 1.0], [1.0, 1.0, 1.0, 1.0]], dtype=torch.float64)
TEACHER = torch.tensor([[1.0, 0.0, 0.0, 2.0], [-1.0, 2.0, 0.0, 0.5], [4.0, 1.0, 0.0, -1.0]], dtype=torch.float64)
LABELS = torch.tensor([0, 1, 3])
OWN = torch.tensor([False, True, False, True])


def own_and_other(logits, own):
    """Return probabilities of the own classes in their order, and the sum of all others', in numpy."""
    p = softmax(logits)
    return np.column_stack([p[:, own], p[:, ~own].sum(axis=1)])


def test_other_is_the_sum_of_the_foreign_classes():
    """The last column is the log of what the foreign classes have together; each row is a distribution."""
    got = log_own_and_other(LOGITS, OWN)
    assert got.shape == (3, 3)
    np.testing.assert_allclose(got, np.log(own_and_other(LOGITS.numpy(), OWN.numpy())), rtol=1e-12)
    np.testing.assert_allclose(got.exp().sum(1), 1, rtol=1e-12)


def test_with_all_classes_there_is_no_other():
    """A sub-model for every class has as many columns as classes, and its labels are the labels."""
    everything = torch.ones(4, dtype=torch.bool)
    assert torch.equal(log_own_and_other(LOGITS, everything), LOGITS.log_softmax(1))
    assert torch.equal(own_and_other_labels(LABELS, everything), LABELS)


def test_extreme_logits_stay_finite():
    """Foreign classes of no probability at all have a finite log all the same."""
    assert torch.isfinite(log_own_and_other(torch.tensor([[0.0, 1e4, -1e4, 1e4]]), OWN)).all()


def test_labels_follow_the_columns():
    """Own classes 1 and 3 are columns 0 and 1, classes 0 and 2 the last column."""
    assert own_and_other_labels(torch.tensor([0, 1, 2, 3]), OWN).tolist() == [2, 0, 2, 1]


def softmax(logits):
    """Return probabilities, in numpy."""
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_soft_loss_is_the_scaled_divergence(temperature):
    """The soft loss is T^2 KL(teacher || student) over all classes, both softened by T, averaged over images."""
    p, q = softmax(TEACHER.numpy() / temperature), softmax(LOGITS.numpy() / temperature)
    expected = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    assert soft_loss(LOGITS, TEACHER, temperature).item() == pytest.approx(expected, rel=1e-10)


def test_a_model_has_no_soft_loss_with_itself():
    """A student that answers as its teacher does has nothing left to learn from it."""
    assert soft_loss(LOGITS, LOGITS, 2.0).item() == pytest.approx(0, abs=1e-15)


@pytest.mark.parametrize("own", [OWN, torch.tensor([True] * 4), torch.tensor([True, False, False, False])])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_distillation_loss_is_half_hard_half_soft(own, temperature):
    """The loss is the mean of cross-entropy over own classes and other, and of the soft loss over all classes."""
    mask = own.numpy()
    columns = [*np.flatnonzero(mask), *([-1] if not mask.all() else [])]
    rows = [columns.index(label) if label in columns else len(columns) - 1 for label in LABELS.tolist()]
    hard = -np.log(own_and_other(LOGITS.numpy(), mask)[range(3), rows]).mean()
    p, q = softmax(TEACHER.numpy() / temperature), softmax(LOGITS.numpy() / temperature)
    soft = temperature**2 * (p * np.log(p / q)).sum(axis=1).mean()
    got = distillation_loss(LOGITS, TEACHER, LABELS, own, temperature)
    assert got.item() == pytest.approx(0.5 * hard + 0.5 * soft, rel=1e-10)


def test_a_model_learns_nothing_from_itself():
    """With the student as its own teacher, what is left is half the cross-entropy."""
    hard = F.nll_loss(log_own_and_other(LOGITS, OWN), own_and_other_labels(LABELS, OWN))
    assert distillation_loss(LOGITS, LOGITS, LABELS, OWN, 2.0).item() == pytest.approx(0.5 * hard.item(), rel=1e-12)


# Fusion


@pytest.fixture
def fusion():
    """A fusion of two devices with 3 and 2 features, standardised by 50 random images, and those features."""
    fusion = Fusion([3, 2], hidden=4, num_classes=2)
    features = torch.randn(50, 5, generator=generator()) * 3 + 1
    with torch.no_grad():
        for p in (*fusion.fc1.parameters(), *fusion.fc2.parameters()):
            p.normal_(generator=generator(1))
    fusion.standardise(features)
    return fusion, features


def test_fusion_is_two_layers_on_standardised_features(fusion):
    """The logits are fc2(gelu(fc1((x - mean) / spread))), with mean and spread of the training images."""
    fusion, features = fusion
    x = (features - features.mean(0)) / features.std(0)
    hidden = x @ fusion.fc1.weight.T + fusion.fc1.bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / 2**0.5))
    torch.testing.assert_close(fusion(features), hidden @ fusion.fc2.weight.T + fusion.fc2.bias)


def test_a_missing_device_counts_as_its_average_answer(fusion):
    """Without device 1, its two features count as their mean over the training images, whatever stands there."""
    fusion, features = fusion
    averaged = torch.cat([features[:, :3], features[:, 3:].mean(0).expand(50, 2)], dim=1)
    present = torch.tensor([1.0, 0.0]).expand(50, 2)
    torch.testing.assert_close(fusion(features, present), fusion(averaged))
    torch.testing.assert_close(fusion(features, torch.ones(50, 2)), fusion(features))


def test_devices_may_be_missing_image_by_image(fusion):
    """Who is present is said for each image on its own."""
    fusion, features = fusion
    present = torch.tensor([[1.0, 1.0], [0.0, 1.0], [0.0, 0.0]])
    together = fusion(features[:3], present)
    for i in range(3):
        torch.testing.assert_close(together[i : i + 1], fusion(features[i : i + 1], present[i : i + 1]))


def test_a_feature_that_never_changes_does_no_harm(fusion):
    """A feature without spread gives finite logits."""
    fusion, features = fusion
    features[:, 0] = 7.0
    fusion.standardise(features)
    assert torch.isfinite(fusion(features)).all()


# Training


IMAGES = random_images(SHAPE, 20)
TARGETS = torch.arange(20) % 3
RECIPE = Recipe(epochs=4, batch_size=8)


class Interrupted(Exception):
    """Raised where a run is to die."""


def fresh(kind):
    """Return an untrained model, and its loss with random noise on the images."""
    if kind == "vit":
        model = VisionTransformer(SHAPE)
        initialise(model, generator(5))
        inputs = IMAGES
    else:
        model = Fusion([20, 12], hidden=6, num_classes=3)
        inputs = IMAGES.flatten(1)
        with torch.no_grad():
            for p in (*model.fc1.parameters(), *model.fc2.parameters()):
                p.normal_(generator=generator(5))
        model.standardise(inputs)

    def loss(batch, epoch_generator):
        noise = torch.randn(inputs[batch].shape, generator=epoch_generator)
        return F.cross_entropy(model(inputs[batch] + 0.1 * noise), TARGETS[batch])

    return model, loss


def numbers(model):
    """Return all of a model's numbers, by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(one, other):
    """Two states are equal bit for bit."""
    assert one.keys() == other.keys()
    assert not [name for name in one if not torch.equal(one[name], other[name])]


@pytest.mark.parametrize("kind", ["vit", "fusion"])
@pytest.mark.parametrize("died_after", [1, 2, 4])
def test_an_interrupted_training_goes_on_as_if_unbroken(tmp_path, kind, died_after):
    """A run that died after an epoch and was started again ends, bit for bit, where an unbroken one does."""
    unbroken, loss = fresh(kind)
    fit(unbroken, loss, 20, RECIPE, seed=3)

    epochs = iter(range(1, 9))

    def die():
        if next(epochs) == died_after:
            raise Interrupted

    broken, loss = fresh(kind)
    with pytest.raises(Interrupted):
        fit(broken, loss, 20, RECIPE, 3, tmp_path / "state", die)
    calls = []
    resumed, loss = fresh(kind)
    fit(resumed, loss, 20, RECIPE, 3, tmp_path / "state", lambda: calls.append(1))
    assert_same(numbers(resumed), numbers(unbroken))
    assert len(calls) == 4
    assert not resumed.training


def test_a_training_that_died_within_an_epoch_goes_on_from_the_last_whole_one(tmp_path):
    """Half an epoch is forgotten, and leaves no trace."""
    unbroken, loss = fresh("vit")
    fit(unbroken, loss, 20, RECIPE, seed=3)
    broken, loss = fresh("vit")
    steps = iter(range(100))

    def dying(batch, epoch_generator):
        # 20 samples in batches of 8 are 3 steps an epoch: step 7 is in the third.
        if next(steps) == 7:
            raise Interrupted
        return loss(batch, epoch_generator)

    with pytest.raises(Interrupted):
        fit(broken, dying, 20, RECIPE, 3, tmp_path / "state")
    resumed, loss = fresh("vit")
    fit(resumed, loss, 20, RECIPE, 3, tmp_path / "state")
    assert_same(numbers(resumed), numbers(unbroken))


def test_training_is_the_seeds():
    """The same seed ends at the same weights, another seed at others."""
    states = []
    for seed in (3, 3, 4):
        model, loss = fresh("vit")
        fit(model, loss, 20, RECIPE, seed)
        states.append(numbers(model))
    assert_same(states[0], states[1])
    assert not torch.equal(states[0]["head.weight"], states[2]["head.weight"])


def test_training_learns():
    """A small network learns labels that are the sign of the image's sum."""
    shape = Shape(4, 2, 1, 2, 8, 4, (2,), (16,))
    model = VisionTransformer(shape)
    initialise(model, generator())
    images = random_images(shape, 64)
    labels = (images.sum((1, 2, 3)) > 0).long()

    def loss(batch, _):
        return F.cross_entropy(model(images[batch]), labels[batch])

    fit(model, loss, 64, Recipe(epochs=40, batch_size=16, learning_rate=5e-3), seed=0)
    assert accuracy(model, Samples(images, labels)) > 0.9


def test_frozen_numbers_stay_as_they_are():
    """The fusion's mean and spread are not trained and do not decay."""
    model, loss = fresh("fusion")
    before = numbers(model)
    fit(model, loss, 20, RECIPE, seed=3)
    assert torch.equal(model.mean, before["mean"])
    assert torch.equal(model.std, before["std"])
    assert not torch.equal(model.fc1.weight, before["fc1.weight"])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(value):
    """The message says in which epoch, and at which learning rate."""
    model, loss = fresh("vit")
    steps = iter(range(100))

    def bursting(batch, epoch_generator):
        # Three steps an epoch: step 4 is in the second epoch, behind one step of warm-up out of 12.
        return loss(batch, epoch_generator) * (value if next(steps) == 4 else 1.0)

    rate = RECIPE.rate(4, 12)
    with pytest.raises(PlannerError, match=rf"became {value} in epoch 2 at learning rate {rate:.2g}: lower it\."):
        fit(model, bursting, 20, RECIPE, seed=3)


def rewritten(content, change, metadata):
    """Return a training state with its tensors changed and other metadata."""
    return save(change(load(content)), metadata)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[: len(content) // 2],
        lambda content: b"not a training state",
        lambda content: rewritten(content, lambda s: without(s, "model.head.bias"), {"epoch": "1"}),
        lambda content: rewritten(content, lambda s: without(s, "exp_avg.head.bias"), {"epoch": "1"}),
        lambda content: rewritten(content, lambda s: s | {"model.head.bias": torch.ones(7)}, {"epoch": "1"}),
        lambda content: rewritten(content, lambda s: s, None),
        lambda content: rewritten(content, lambda s: s, {"other": "1"}),
        lambda content: rewritten(content, lambda s: s, {"epoch": "one"}),
    ],
    ids=[
        "empty",
        "truncated",
        "text",
        "no weights",
        "no moments",
        "another network's",
        "no metadata",
        "no epoch",
        "epoch not a number",
    ],
)
def test_a_damaged_training_state_is_refused(tmp_path, damage):
    """A state that cannot be resumed is named, with what to do about it."""
    path = tmp_path / "state"
    model, loss = fresh("vit")
    fit(model, loss, 20, Recipe(epochs=1, batch_size=8), 3, path)
    path.write_bytes(damage(path.read_bytes()))
    model, loss = fresh("vit")
    with pytest.raises(PlannerError, match=r"state: not a training state .*delete it to begin again"):
        fit(model, loss, 20, RECIPE, 3, path)


def test_the_learning_rate_warms_up_and_comes_down():
    """Over 20 steps with a tenth of warm-up: half, whole, then a cosine from the whole down towards zero."""
    recipe = Recipe(epochs=1, learning_rate=0.1, warmup_share=0.1)
    rates = [recipe.rate(step, 20) for step in range(20)]
    assert rates[:3] == pytest.approx([0.05, 0.1, 0.1])
    assert rates[11] == pytest.approx(0.05)
    assert rates[1:] == sorted(rates[1:], reverse=True)
    assert 0 < rates[-1] < 0.001


# Jitter


def test_no_jitter_is_the_identity():
    """Shifts and rotations of up to nothing leave the images as they are, to 1e-6."""
    images = torch.rand(6, 2, 8, 8, generator=generator())
    assert (Jitter(0.0, 0.0)(images, generator()) - images).abs().max() <= 1e-6


def test_jitter_is_the_generators():
    """The same generator state draws the same jitter, and each image gets its own."""
    images = torch.rand(1, 1, 8, 8, generator=generator()).expand(3, -1, -1, -1)
    first = Jitter(1.0, 10.0)(images, generator(2))
    assert torch.equal(first, Jitter(1.0, 10.0)(images, generator(2)))
    assert not torch.allclose(first[0], first[1])


@pytest.mark.parametrize("vertical", [False, True])
def test_shifts_stay_within_what_is_allowed(vertical):
    """On a ramp that rises by 1 a pixel, a shift of up to 1.5 pixels changes the inner pixels by up to 1.5."""
    ramp = torch.arange(10.0).expand(10, 10)
    images = (ramp.T if vertical else ramp).expand(200, 1, 10, 10)
    change = (Jitter(1.5, 0.0)(images, generator()) - images)[:, 0, 2:-2, 2:-2]
    assert 1.2 < change.abs().max() <= 1.5 + 1e-4
    # One image is shifted as a whole, some one way and some the other.
    assert (change.amax((1, 2)) - change.amin((1, 2))).max() < 1e-4
    assert change.min() < -1.2
    assert change.max() > 1.2


def test_rotations_stay_within_what_is_allowed():
    """On a ramp, a rotation by a small angle tilts by its sine: over 4 pixels, at most 4 sin(20 degrees)."""
    ramp = torch.arange(10.0).expand(200, 1, 10, 10)
    turned = Jitter(0.0, 20.0)(ramp, generator())[:, 0]
    tilt = (turned[:, 7, 5] - turned[:, 3, 5]).abs()
    assert 0.9 * 4 * math.sin(math.radians(20)) < tilt.max() <= 4 * math.sin(math.radians(20)) + 1e-4

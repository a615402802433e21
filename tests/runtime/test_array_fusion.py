"""The fusion in numpy against torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.network.fusion import fresh_fusion
from planner.runtime.fusion import ArrayFusion, probabilities

DIMS = st.lists(st.integers(1, 24), min_size=1, max_size=6)


@given(dims=DIMS, hidden=st.integers(1, 48), classes=st.integers(2, 20), seed=st.integers(0, 1000), data=st.data())
@settings(max_examples=60, deadline=None)
def test_it_equals_torchs(dims: list[int], hidden: int, classes: int, seed: int, data: st.DataObject) -> None:
    """Logits agree with torch's to 1e-5 of their scale, whichever devices are missing."""
    present = data.draw(st.lists(st.booleans(), min_size=len(dims), max_size=len(dims)))
    features = 3 * torch.randn(50, sum(dims), generator=torch.Generator().manual_seed(seed)) + 1
    of_torch = fresh_fusion(features, dims, hidden, classes, seed)
    arrays = {name: value.detach().numpy() for name, value in of_torch.state_dict().items()}
    parts = torch.split(features[7], dims)
    given_ = {place: part.numpy() for place, part in enumerate(parts) if present[place]}
    with torch.no_grad():
        expected = of_torch(features[7:8], torch.tensor([present], dtype=torch.float32))[0].numpy()
    logits = ArrayFusion(arrays, dims).logits(given_)
    assert np.abs(logits - expected).max() <= 1e-5 * max(1.0, np.abs(expected).max())


def test_probabilities_are_a_softmax() -> None:
    """Large logits do not overflow: e^0 : e^-ln 3 is 3 : 1."""
    assert probabilities(np.array([1000.0, 1000.0 - np.log(3)])) == pytest.approx([0.75, 0.25])

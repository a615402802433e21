"""A generated sub-model, compiled and run in this process."""

import shutil
from collections.abc import Mapping

import numpy as np
import pytest

from planner.errors import InputError, PlannerError
from planner.network.vit import Shape
from planner.runtime.c import host
from planner.runtime.c.generate import model_files
from tests.helpers.c_models import Answer, assert_equal_features, c_compiler, make_case

CASE = make_case(Shape((6, 4), 2, 3, 2, 9, 4, (1, 2), (3, 0)))


@pytest.fixture(scope="module")
def files() -> Mapping[str, str]:
    """Generated files of the case."""
    c_compiler()
    return model_files(CASE.network, CASE.image, CASE.precision)


def test_features(files: Mapping[str, str]) -> None:
    """Features of a batch are those of its images, one by one, also of images that do not lie side by side."""
    with host.HostModel(files) as model:
        features = model.features(CASE.images)
        assert_equal_features([CASE], [Answer(features, 0)], tolerance=1e-5)
        turned = np.asfortranarray(CASE.images[::-1])
        np.testing.assert_array_equal(model.features(turned), features[::-1])
        with pytest.raises(InputError, match=r"An image must have 72 bytes, got 36\."):
            model.features(CASE.images[:, :, :3])


def test_what_does_not_compile(files: Mapping[str, str]) -> None:
    """The compiler's reason is passed on."""
    with pytest.raises(PlannerError, match=r"could not compile the sub-model: .*nonsense"):
        host.HostModel({**files, "model.c": "nonsense"})


def test_no_compiler(files: Mapping[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a compiler, the message says what to install."""
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"a compiler .* must be on the path, got none; install gcc"):
        host.HostModel(files)

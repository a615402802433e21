"""The latency fit against known coefficients."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from planner.profiler.device.latency_fit import LastBlock, LatencyFit, TimedNetwork, fit_latency, num_parameters
from tests.helpers.timed_networks import WIDTHS, coefficients, time_us, timed_design

# Sub-models that no design has.
NEW = [
    (e, heads, channels)
    for e, heads, channels in itertools.product(
        WIDTHS, [(1, 2, 3, 4), (0, 0, 1, 0), (2, 2, 2, 2)], [(8, 96, 256, 0), (128, 128, 128, 128)]
    )
]


def errors(fitted: LatencyFit) -> np.ndarray:
    """Return predicted / true - 1 for the new sub-models."""
    return np.array([fitted.predict_us(*network) / time_us(*network) - 1 for network in NEW])


def test_exact_timings_give_the_coefficients_of_every_width() -> None:
    """From exact timings all five coefficients are found at all five widths, without held-out error."""
    fitted = fit_latency(timed_design())
    for e in WIDTHS:
        row = fitted.row(e, "int8", "onnxruntime", "a test")
        found = (row.fixed_us, row.attention_us, row.head_us, row.mlp_us, row.channel_us)
        assert found == pytest.approx(coefficients(e), abs=1e-3)
        assert (row.embed_dim, row.precision, row.source, row.mape, row.p95_error) == (e, "int8", "a test", 0, 0)


def test_a_width_between_timed_widths_is_predicted() -> None:
    """At width 40, which was not timed, the row follows the formula."""
    assert fit_latency(timed_design()).row(40, "float32", "onnxruntime", "").channel_us == pytest.approx(
        coefficients(40)[4], abs=1e-3
    )


def test_one_width_alone_can_be_fitted() -> None:
    """With timings of the full width alone, the five coefficients at that width are found."""
    only = [TimedNetwork(64, t.num_heads, t.hidden_dim, time_us(64, t.num_heads, t.hidden_dim)) for t in timed_design()]
    assert num_parameters(only) == 5
    assert fit_latency(only).row(64, "float32", "onnxruntime", "").head_us == pytest.approx(
        coefficients(64)[2], abs=1e-3
    )


def test_noise_of_a_tenth_is_averaged_and_stated() -> None:
    """From times with 10 % noise, new sub-models are predicted to 6 % on average, within the stated error."""
    fits = [fit_latency(timed_design(noise=0.1, seed=seed)) for seed in range(6)]
    assert np.mean([np.abs(errors(f)).mean() for f in fits]) < 0.06
    for f in fits:
        assert np.abs(errors(f)).mean() < f.mape < 0.25
        assert f.mape <= f.p95_error


def test_noise_does_not_make_the_model_too_fast() -> None:
    """Over many noisy devices the mean error of new sub-models is near zero."""
    mean_errors = [errors(fit_latency(timed_design(noise=0.1, seed=seed))).mean() for seed in range(12)]
    assert np.mean(mean_errors) == pytest.approx(0, abs=0.015)


@pytest.mark.parametrize("factor", [1000, 5, 1 / 5, 1 / 1000])
def test_wild_times_hardly_move_the_fit(factor: float) -> None:
    """With 10 % noise and one outlier in twelve, new sub-models are still predicted."""
    timed = timed_design(noise=0.1, seed=3)
    for i in (4, 13):
        timed[i] = TimedNetwork(timed[i].embed_dim, timed[i].num_heads, timed[i].hidden_dim, timed[i].time_us * factor)
    fitted = fit_latency(timed)
    assert np.abs(errors(fitted)).mean() < 0.10
    assert sorted(np.argsort(np.abs(fitted.residuals))[-2:].tolist()) == [4, 13]


def test_no_coefficient_is_below_zero() -> None:
    """Pure noise around one constant time gives a fixed time and no negative coefficient."""
    rng = np.random.default_rng(0)
    flat = [TimedNetwork(t.embed_dim, t.num_heads, t.hidden_dim, float(rng.normal(100, 5))) for t in timed_design()]
    fitted = fit_latency(flat)
    assert min(fitted.constant.min(), fitted.slope.min()) >= 0
    assert fitted.row(64, "float32", "onnxruntime", "").fixed_us == pytest.approx(100, abs=15)


def test_errors_are_those_of_networks_with_a_head() -> None:
    """Three times the time of networks without any head, which no sub-model is like, says nothing of others' errors."""
    timed = timed_design()
    headless = [i for i, t in enumerate(timed) if not any(t.num_heads)]
    assert headless
    assert len(fit_latency(timed).errors) == len(timed) - len(headless)
    (first, *_) = headless
    timed[first] = replace(timed[first], time_us=3 * timed[first].time_us)
    assert fit_latency(timed).mape < 0.02
    alone = [timed[i] for i in headless]
    assert len(fit_latency(alone).errors) == len(alone)


def test_the_share_of_the_last_block_by_hand() -> None:
    """17 tokens, heads of 16 dims, embed dim 64, of which one token is read.

    Keys and values: 2 x 17 x 16 x 64 = 34,816 MACs. Of each token read, query and output 2,048, scores and sums 544:
    37,408 of 78,880 in all. A channel is computed of one token in 17.
    """
    last = LastBlock(num_tokens=17, num_read=1, head_dim=16)
    assert last.head_share(64) == 37_408 / 78_880
    assert last.channel_share == 1 / 17
    assert LastBlock(num_tokens=17, num_read=17, head_dim=16).head_share(64) == 1


def test_a_last_block_that_is_computed_in_part_has_its_own_coefficients() -> None:
    """From times in which heads and channels of the last block take their shares, all coefficients are found."""
    last = LastBlock(num_tokens=17, num_read=1, head_dim=16)

    def shorter(t: TimedNetwork) -> TimedNetwork:
        _, _, head, _, channel = coefficients(t.embed_dim)
        saved = head * t.num_heads[-1] * (1 - last.head_share(t.embed_dim))
        saved += channel * t.hidden_dim[-1] * (1 - last.channel_share)
        return replace(t, time_us=t.time_us - saved)

    timed = [shorter(t) for t in timed_design()]
    fitted = fit_latency(timed, last)
    assert fitted.errors.max() < 1e-6
    assert fit_latency(timed).mape > 0.02
    for e in WIDTHS:
        row = fitted.row(e, "float32", "c", "")
        found = (row.fixed_us, row.attention_us, row.head_us, row.mlp_us, row.channel_us)
        assert found == pytest.approx(coefficients(e), abs=1e-3)
        assert row.last_head_us == pytest.approx(row.head_us * last.head_share(e), abs=1e-3)
        assert row.last_channel_us == pytest.approx(row.channel_us / 17, abs=1e-3)
    new = shorter(TimedNetwork(40, (1, 2, 0, 3), (8, 0, 16, 96), time_us(40, (1, 2, 0, 3), (8, 0, 16, 96))))
    assert fitted.predict_us(new.embed_dim, new.num_heads, new.hidden_dim) == pytest.approx(new.time_us)

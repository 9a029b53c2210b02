from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from omnisat_cli.engine.blend import ramp, window_weight
from omnisat_cli.errors import JobError


@given(overlap=st.integers(0, 24), extra=st.integers(1, 40))
def test_neighbouring_ramps_sum_to_one(overlap: int, extra: int) -> None:
    size = 2 * overlap + extra
    stride = size - overlap
    total = np.zeros(3 * stride + overlap)
    for k in range(3):
        total[k * stride :][:size] += ramp(size, overlap)
    np.testing.assert_allclose(total[overlap : 3 * stride], 1, rtol=1e-6)


@given(overlap=st.integers(0, 24))
def test_every_covered_pixel_has_a_weight(overlap: int) -> None:
    assert window_weight(2 * overlap + 1, overlap).min() > 0


def test_an_overlap_beyond_half_the_window_is_refused() -> None:
    with pytest.raises(JobError, match="at most 8"):
        ramp(16, 9)

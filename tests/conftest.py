"""What every test may ask for."""

import numpy as np
import pytest
from hypothesis import settings

settings.register_profile("unhurried", deadline=None)  # a busy machine is no reason to fail
settings.load_profile("unhurried")


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)

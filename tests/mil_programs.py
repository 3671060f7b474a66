"""What tests of Core ML's intermediate language share; without coremltools they are skipped."""

from __future__ import annotations

import logging

import numpy as np
import pytest

logging.disable(logging.WARNING)
ct = pytest.importorskip("coremltools")
logging.disable(logging.NOTSET)
mb = ct.converters.mil.Builder
IOS15 = ct.target.iOS15
RANDOM = np.random.default_rng(0)


def floats(*shape):
    return RANDOM.normal(size=shape).astype(np.float32)

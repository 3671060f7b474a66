"""Imported by every Python that a test starts, before anything else: the guard of the network holds there too."""

import importlib.util
import sys
from pathlib import Path

specification = importlib.util.spec_from_file_location("guard", Path(__file__).parent.parent / "guard.py")
guard = importlib.util.module_from_spec(specification)
specification.loader.exec_module(guard)
sys.modules["guard"] = guard  # workers of pytest-xdist are such Pythons: their tests expect this module's errors
sys.addaudithook(guard.refuse_network)

"""Prometheus's own tool, which says whether metrics and rules are as it takes them."""

import os
import shutil
import sys
from pathlib import Path

import pytest


def promtool() -> str:
    """Where it is. Without it the test is skipped, but fails in CI."""
    ours = Path(sys.executable).parent / "promtool"
    if ours.exists():
        return str(ours)
    if found := shutil.which("promtool"):
        return found
    if os.environ.get("CI"):
        pytest.fail("promtool is not there; deploy/dev-setup.sh gets it from Debian's package prometheus")
    pytest.skip("promtool is not installed; deploy/dev-setup.sh gets it from Debian's package prometheus")

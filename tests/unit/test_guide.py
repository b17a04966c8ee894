"""The pages of the guide that are made from the code are up to date."""

from pathlib import Path

import pytest

from azaion_daemon.ops.guide import PAGES

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.mark.parametrize("name", PAGES)
def test_a_generated_page_says_what_the_code_says(name: str) -> None:
    assert (DEPLOY / name).read_text(encoding="utf-8") == PAGES[name](), "python -m azaion_daemon.ops.guide writes it"

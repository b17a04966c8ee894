"""Every link in the documents leads somewhere."""

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]
_DOCUMENTS = ("README.md", "CHANGELOG.md", "deploy/README.md")


def anchors(document: Path) -> set[str]:
    """Those that a heading gets, as GitHub and GitLab make them."""
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", _DOCUMENTS)
def test_every_link_leads_to_a_file_and_a_heading_that_there_is(name: str) -> None:
    document = _ROOT / name
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        aim = (document.parent / file).resolve() if file else document
        if not aim.exists() or (anchor and anchor not in anchors(aim)):
            broken.append(target)
    assert broken == []


def test_every_section_of_the_operators_guide_is_in_its_contents() -> None:
    text = (_ROOT / "deploy" / "README.md").read_text()
    contents = text[: text.index("\n## ")]
    sections = re.findall(r"^## (.+)$", text, re.MULTILINE)
    named = set(re.findall(r"\(#([^)]+)\)", contents))
    missing = [heading for heading in sections if re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") not in named]
    assert missing == []

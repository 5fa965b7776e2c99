import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("notebooks/*.md")])
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


def written(page):
    """The Markdown of a page, or of the cells of a notebook."""
    if page.suffix == ".md":
        return page.read_text()
    cells = json.loads(page.read_text())["cells"]
    return "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")


@pytest.mark.parametrize("page", [*PAGES, *NOTEBOOKS], ids=lambda page: str(page.relative_to(ROOT)))
def test_links_within_the_repository_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", written(page))
    lost = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert not lost


@pytest.mark.parametrize("page", NOTEBOOKS, ids=lambda page: page.name)
def test_links_within_a_notebook_lead_to_a_heading(page):
    headings = {heading.replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", written(page), re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)\s]+)\)", written(page))) <= headings

"""Links of all pages. The site's strict build sees those between pages only; GitHub's readers follow the others too."""

import re

import pytest

from cifar.common.project import ROOT
from tests.support.pages import anchors, find_pages, links, name, prose

PAGES = [page for page in find_pages() if links(page)]
_PATH = r"`((?:alerts|benchmarks|cifar|docs|drill|grafana|handler|targets|tests|training)/[\w./-]+\.\w+)`"


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_every_link_leads_to_a_file_and_a_heading(page):
    broken = []
    for target, anchor in links(page):
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(f"{target}#{anchor}" if anchor else target)
    assert not broken


@pytest.mark.parametrize("page", [page for page in find_pages() if page.name != "CHANGELOG.md"], ids=name)
def test_every_path_in_the_text_exists(page):
    named = set(re.findall(_PATH, prose(page)))
    assert not {path for path in named if not (ROOT / path).exists()}


def test_links_are_found():
    """The checks above would pass if the pages were no longer read as they are written."""
    assert sum(len(links(page)) for page in PAGES) > 150
    assert len([anchor for page in PAGES for _, anchor in links(page) if anchor]) > 5

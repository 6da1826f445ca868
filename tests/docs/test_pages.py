"""What single pages promise: the README's size, the tour's, the list of decisions, the changelog's newest release."""

import re
import tomllib

import pytest

from cifar.common.project import ROOT
from tests.support.pages import find_pages, links

DOCS = ROOT / "docs"
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
DECISIONS = sorted((DOCS / "adr").glob("0*.md"))


def test_the_readme_fits_on_a_few_screens():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert len(lines) <= 130
    assert not [line for line in lines if len(line) > 120]


def test_the_tour_is_as_long_as_it_says():
    rows = re.findall(r"^\| (\d+) \| \[(\S+)\]\(\.\./(\S+)\) \|", (DOCS / "tour.md").read_text(), re.MULTILINE)
    lengths = {path: len((ROOT / path).read_text().splitlines()) for _, _, path in rows}
    assert 1500 <= sum(lengths.values()) <= 1900
    assert not [path for said, shown, path in rows if shown != path or abs(int(said) - lengths[path]) > 30]


def test_every_decision_is_in_the_list():
    listed = [link.target for link in links(DOCS / "adr" / "index.md")]
    assert listed == [file.name for file in DECISIONS]


@pytest.mark.parametrize("file", DECISIONS, ids=lambda file: file.name)
def test_a_decision_says_its_number_its_status_and_its_drawbacks(file):
    text = file.read_text()
    assert text.startswith(f"# {int(file.name[:4])}. ")
    assert re.findall("^(?:Status: accepted|## .*)", text, re.MULTILINE) == [
        "Status: accepted", "## Context", "## Decision", "## Consequences",
    ]  # fmt: skip


def test_the_layers_are_drawn_as_they_are_checked():
    drawn = (DOCS / "architecture.md").read_text().partition("```\n")[2].partition("```")[0]
    rows = [re.findall(r"cifar/(\w+)", line) for line in drawn.splitlines() if "cifar/" in line]
    [layers] = [contract["layers"] for contract in CONTRACTS if contract["type"] == "layers"]
    assert [sorted(row) for row in rows] == [sorted(layer.split(" | ")) for layer in layers]


def test_every_page_of_the_site_is_in_its_navigation():
    navigation = tomllib.loads((ROOT / "zensical.toml").read_text())["project"]["nav"]
    groups = [[entry] if isinstance(entry, str) else next(iter(entry.values())) for entry in navigation]
    assert sorted(DOCS / page for group in groups for page in group) == sorted(
        {*find_pages()} & {*DOCS.rglob("*.md")} - {*DECISIONS}
    )


def test_the_newest_release_is_the_version_of_the_package():
    releases = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert releases[0] == "Unreleased"
    assert releases[1].startswith(f"{version} (")

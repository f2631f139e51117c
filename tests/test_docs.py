"""What is written for people agrees with the code. The examples in README.md and docs/ run as tests of their own."""

from __future__ import annotations

import importlib.util
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "src").rglob("*.md")]
)


@pytest.fixture(scope="module")
def generate():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_losses_is_what_the_registry_says(generate):
    assert (ROOT / "docs/losses.md").read_text(encoding="utf-8") == generate.losses_page(), "run docs/generate.py"


def test_the_page_of_findings_is_what_the_rules_say(generate):
    text = (ROOT / "docs/findings.md").read_text(encoding="utf-8")
    assert text == generate.findings_page(), "run docs/generate.py"
    for code in generate.RULES:
        assert re.search(rf"^{code} (error|warning|note): ", text, flags=re.MULTILINE), (
            f"the example of {code} finds it"
        )
    anchors = {generate.anchor(rule.code, rule.title) for rule in generate.RULES.values()}
    assert set(re.findall(r"\]\(#([^)]+)\)", text)) == anchors


def test_the_readme_counts_the_rules(generate):
    assert f"looks for {len(generate.RULES)} mistakes" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert f"{len(generate.RULES)} rules" in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def test_the_table_in_the_readme_is_what_the_registry_says(generate):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert text == generate.readme(text), "run docs/generate.py"
    assert "`cross_entropy`" in text


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if "://" not in link and not link.startswith("#"):
            assert (page.parent / link.split("#")[0]).exists(), f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_shown_are_targets_of_the_makefile(page):
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE))
    for target in re.findall(r"^make (\w+)", page.read_text(encoding="utf-8"), flags=re.MULTILINE):
        assert target in targets


def test_the_core_needs_torch_and_numpy_only():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(re.split("[<>=]", need)[0] for need in project["dependencies"]) == ["numpy", "torch"]
    assert {"data", "cli", "report", "test", "docs", "all"} <= set(project["optional-dependencies"])

"""README files: links lead to files, commands parse, tables of keys and the folder tree are those of the package."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from asd_ray.config import EvaluationConfig, ResourceConfig, SearchConfig
from asd_ray.config.section import Section
from tests.command_lines import ASD_RAY, REPO, check_command, find, named_commands, our_commands

PAGES = [REPO / "README.md"]
PAGES += [
    page for name in ("asd_ray", "cluster", "studies", "tests") for page in sorted((REPO / name).rglob("README.md"))
]


def name(page: Path) -> str:
    return page.relative_to(REPO).as_posix()


def without_code(page: Path) -> str:
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_relative_links_lead_to_files_and_headings(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", without_code(page)):
        if not target.startswith(("http:", "https:")):
            path, _, anchor = target.partition("#")
            found = page.parent / path if path else page
            assert found.exists(), target
            assert not anchor or anchor in anchors(found), target


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_commands_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for arguments in our_commands(text):
        check_command(arguments)
    for arguments in named_commands(text):
        find(ASD_RAY, arguments)


def test_a_command_that_does_not_exist_is_noticed() -> None:
    with pytest.raises(Exception, match="No such option"):
        check_command(["study", "run", "studies/quickstart.yaml", "--adress", "auto"])
    with pytest.raises(AssertionError, match="no command"):
        check_command(["study", "start", "studies/quickstart.yaml"])
    with pytest.raises(AssertionError, match="no study file"):
        check_command(["study", "run", "studies/slowstart.yaml"])


def test_the_front_page_is_short_and_has_one_python_block() -> None:
    text = PAGES[0].read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 150
    assert text.count("```python") == 1
    assert len(list(our_commands(text))) >= 8


def test_the_tree_names_every_folder_of_the_package() -> None:
    [tree] = re.findall(r"```text\n(asd_ray/\n.*?)```", PAGES[0].read_text(encoding="utf-8"), re.DOTALL)
    listed = {line.split()[0] for line in tree.splitlines() if line.startswith("  ")}
    folders = {f"{path.parent.name}/" for path in (REPO / "asd_ray").glob("*/__init__.py")}
    assert {entry for entry in listed if entry.endswith("/")} == folders
    outside = [line.split()[0] for line in tree.splitlines() if not line.startswith("  ")]
    assert all((REPO / entry).exists() for entry in outside)
    assert all((REPO / "asd_ray" / entry).exists() for entry in listed)


def as_written(value: Any) -> str:
    """A default value as the tables write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (tuple, list)):
        return f"[{', '.join(map(str, value))}]"
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


@pytest.mark.parametrize(
    ("section", "config"), [("search", SearchConfig), ("evaluation", EvaluationConfig), ("resources", ResourceConfig)]
)
def test_the_table_of_a_section_has_its_keys_and_defaults(section: str, config: type[Section]) -> None:
    text = (REPO / "studies" / "README.md").read_text(encoding="utf-8")
    table = text.split(f"## `{section}`", 1)[1].split("\n\n")[1]
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:3]] for line in table.splitlines()[2:]]
    defaults = {key: field.get_default(call_default_factory=True) for key, field in config.model_fields.items()}
    assert [key for key, _ in rows] == list(config.model_fields)
    for key, written in rows:
        assert written == as_written(defaults[key]) or (key, written) == ("scores", "all")


def test_the_list_of_studies_is_complete() -> None:
    text = (REPO / "studies" / "README.md").read_text(encoding="utf-8")
    linked = set(re.findall(r"\]\(([^)]+)\)", text))
    for path in (REPO / "studies").rglob("*.yaml"):
        found = path.relative_to(REPO / "studies")
        assert {found.as_posix(), found.parent.as_posix()} & linked, found

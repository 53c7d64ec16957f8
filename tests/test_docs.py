"""The README, the docs and the community files show only commands, options and files that exist."""

from __future__ import annotations

import re
import shlex
import subprocess
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

import cascade
from cascade.cli.app import app

ROOT = Path(__file__).parent.parent
PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *ROOT.glob(".github/**/*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("docs/**/*.sh"),
        ROOT / "cascade" / "RESULTS.md",
        ROOT / "cascade" / "models" / "MODEL_CARD.md",
        ROOT / "samples" / "README.md",
    ]
)
OLD_NAMES = ROOT / "CHANGELOG.md"  # names the options of earlier versions
CURRENT_PAGES = [path for path in PAGES if path != OLD_NAMES]
COMMANDS = get_command(app)
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
OTHER_PROGRAMS = {"--strict"}
"""Options of mkdocs and mypy that the text mentions outside code blocks."""

SCRIPTS = [*(ROOT / "train").glob("*.py"), *(ROOT / "tests" / "benchmarks").glob("*.py")]
OPTIONS_OF_SCRIPTS = {
    option for path in SCRIPTS for option in re.findall(r'add_argument\(\s*"(--[a-z-]+)"', path.read_text())
}


def shell_lines(text: str) -> list[list[str]]:
    """Split shell code into commands of words, without comments and with continued lines joined."""
    lines = text.replace("\\\n", " ").splitlines()
    commands = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    return [command for command in commands if command]


def commands_of(path: Path) -> list[list[str]]:
    text = path.read_text()
    if path.suffix == ".sh":
        return shell_lines(text)
    blocks = re.findall(r"^ *```sh\n(.*?)^ *```", text, re.MULTILINE | re.DOTALL)
    return [command for block in blocks if "--8<--" not in block for command in shell_lines(block)]


def program(words: list[str]) -> str:
    return words[0].removeprefix(".venv/bin/")


def every_command(name: str) -> list[list[str]]:
    commands = [tuple(words) for path in PAGES for words in commands_of(path) if program(words) == name]
    return [list(words) for words in dict.fromkeys(commands)]


def leaf(words: list[str]):
    """Follow the names of subcommands. Returns the command, its name and the remaining words."""
    command, name, rest = COMMANDS, "cascade", list(words)
    while subcommands := getattr(command, "commands", None):
        assert rest, f"{name} needs a subcommand"
        assert rest[0] in subcommands, f"{name} has no subcommand {rest[0]}"
        name = f"{name} {rest[0]}"
        command, rest = subcommands[rest.pop(0)], rest
    return command, name, rest


def options_of(command) -> set[str]:
    """Return the options of a command and of all its subcommands."""
    names = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    own = {name for name in names if name.startswith("-")}  # arguments have a bare name
    return own.union(*(options_of(each) for each in getattr(command, "commands", {}).values()))


def joined(words: list[str]) -> str:
    return " ".join(words)


@pytest.mark.parametrize("words", every_command("cascade"), ids=joined)
def test_a_cascade_command_parses_with_the_real_options(words):
    if words[1:] == ["--help"]:
        return
    command, name, rest = leaf(words[1:])
    if rest != ["--help"]:
        command.make_context(name, rest)  # raises UsageError for unknown options and for missing or bad values


def test_the_parser_refuses_an_option_that_does_not_exist():
    command, name, rest = leaf(["predict", "scans/", "--no-such-option"])
    with pytest.raises(Exception, match="no-such-option"):
        command.make_context(name, rest)


@pytest.mark.parametrize("words", every_command("python") + every_command("bash"), ids=joined)
def test_a_script_exists_and_has_the_options(words):
    script = ROOT / (words[2].replace(".", "/") + ".py" if words[1] == "-m" else words[1])
    assert script.is_file()
    source = script.read_text()
    for option in (word for word in words[2:] if word.startswith("--")):
        assert f'"{option}"' in source


@pytest.mark.parametrize("words", every_command("make"), ids=joined)
def test_a_make_target_exists(words):
    for target in words[1:]:
        assert re.search(rf"^{re.escape(target)}:", MAKEFILE, re.MULTILINE)


def test_an_extra_that_is_installed_exists():
    text = "".join(path.read_text() for path in [*PAGES, *(ROOT / "cascade").rglob("*.py")])
    shown = re.findall(r"(?:'\.|cascade-mri)\[([a-z,-]+)\]", text)
    assert len(shown) > 5
    assert {extra for extras in shown for extra in extras.split(",")} <= set(
        PYPROJECT["project"]["optional-dependencies"]
    )


@pytest.mark.parametrize("path", CURRENT_PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_an_option_in_the_text_exists(path):
    known = options_of(COMMANDS) | OPTIONS_OF_SCRIPTS | OTHER_PROGRAMS | {"--help"}
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(), flags=re.MULTILINE | re.DOTALL)
    inline = " ".join(re.findall(r"`([^`\n]+)`", text)) if path.suffix == ".md" else ""
    assert set(re.findall(r"(?<!\S)(--[a-z][a-z-]+)", inline)) <= known


@pytest.mark.parametrize("name", ["predict", "evaluate", "benchmark", "build", "info"])
def test_every_option_of_a_command_is_documented(name):
    page = (ROOT / "docs" / ("engines.md" if name == "build" else "usage.md")).read_text()
    undocumented = {option for option in options_of(leaf([name])[0]) if f"`{option}" not in page}
    assert undocumented <= {"--help"}


@pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_linked_file_exists(path):
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", path.read_text())
    for link in (each for each in links if "://" not in each):
        assert (path.parent / link).exists(), link


def test_the_python_examples_use_names_that_cascade_exports():
    code = "\n".join(
        block for path in PAGES for block in re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    )
    for block in re.findall(r"^from cascade import (.+)$", code, re.MULTILINE):
        assert {name.strip() for name in block.split(",")} <= set(cascade.__all__)
    for name in re.findall(r"\bcascade\.(\w+)\(", code):
        assert hasattr(cascade.Cascade, name)
    for name in re.findall(r"\bprediction\.(\w+)", code):
        assert name in {*cascade.Prediction.__dataclass_fields__, "label"}


def test_the_readme_fits_on_a_page_and_says_what_the_tool_is_not():
    text = (ROOT / "README.md").read_text()
    assert len(text.splitlines()) <= 150
    assert "For research only" in text


def test_every_page_is_in_the_navigation():
    navigation = (ROOT / "mkdocs.yml").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        assert f": {page.name}\n" in navigation


def test_the_pictures_are_small():
    for path in (ROOT / "docs" / "images").iterdir():
        assert path.stat().st_size <= 200_000


def test_the_version_is_the_same_everywhere():
    assert f"\nversion: {cascade.__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {cascade.__version__} - " in (ROOT / "CHANGELOG.md").read_text()


def test_the_recipe_of_the_shipped_models_is_valid_shell():
    recipe = ROOT / "docs" / "recipes" / "shipped_models.sh"
    subprocess.run(["bash", "-n", str(recipe)], check=True)
    assert "set -euo pipefail" in recipe.read_text()

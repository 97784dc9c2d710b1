"""README and docs: python blocks compile, marked blocks run, relative links lead somewhere.

A block runs as a test when the line before its fence is `<!-- tested -->`. The marked blocks of one page run in order
in one empty folder, with the environment's commands on PATH; if one says `$RUN`, that is the folder of a small training
run.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

from tests.commands import command
from tests.dependencies import DEPENDENCIES
from tools import site_links

REPO_ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*REPO_ROOT.glob("*.md"), *REPO_ROOT.glob("docs/**/*.md")])
BLOCK = re.compile(
    r"^(?P<mark><!-- tested -->\n)?(?P<fence>`{3,})(?P<language>\w*)[^\n]*\n(?P<code>.*?)^(?P=fence)$", re.M | re.S
)
LINK = re.compile(r"\]\((?!\w+:|#)(?P<target>[^)#\s]+)[^)]*\)|(?:src|href)=\"(?!\w+:|#)(?P<html>[^\"#]+)")


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str
    line: int
    tested: bool


def _blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [
        Block(found["language"], found["code"], text.count("\n", 0, found.start("code")), bool(found["mark"]))
        for found in BLOCK.finditer(text)
    ]


def _command(block: Block) -> list[str]:
    if block.language == "python":
        return [sys.executable, "-c", block.code]
    if block.language in ("bash", "sh"):
        return ["bash", "-euo", "pipefail", "-c", block.code]
    raise AssertionError(f"line {block.line}: only bash and python blocks can be marked as tested")


def _name(page: Path) -> str:
    return str(page.relative_to(REPO_ROOT))


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_python_blocks_compile(page: Path) -> None:
    for block in _blocks(page):
        if block.language == "python":
            compile(block.code, f"{page}:{block.line}", "exec")


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.tested for block in _blocks(page))], ids=_name)
def test_marked_blocks_run(page: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    command("instant-avatar")
    for package in DEPENDENCIES:
        pytest.importorskip(package)
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    if any("$RUN" in block.code for block in _blocks(page) if block.tested):
        environment["RUN"] = "outputs/person/instant-avatar-lite/run"
        shutil.copytree(request.getfixturevalue("trained_run"), tmp_path / environment["RUN"])
    for block in _blocks(page):
        if block.tested:
            finished = subprocess.run(
                _command(block), cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600, check=False
            )
            assert finished.returncode == 0, f"{page}:{block.line}\n{finished.stdout[-2000:]}{finished.stderr[-4000:]}"


@pytest.mark.parametrize("page", PAGES, ids=_name)
def test_relative_links_lead_somewhere(page: Path) -> None:
    text = re.sub("`[^`\n]*`", "", page.read_text(encoding="utf-8"))  # links that are quoted lead nowhere
    targets = [found["target"] or found["html"] for found in LINK.finditer(text)]
    assert [target for target in targets if not (page.parent / target).exists()] == []


def test_contributing_names_what_there_is() -> None:
    """The ways to add something lead to files and names of the package; weights of losses stay out of the help."""
    text = (REPO_ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    ways = text[text.index("## Add a loss term") : text.index("## Rules for code")]
    files = {path.relative_to(REPO_ROOT).as_posix() for path in REPO_ROOT.glob("[!.]*/**/*.py")}
    code = "\n".join(path.read_text(encoding="utf-8") for path in REPO_ROOT.glob("instantavatar_ns/**/*.py"))
    paths = re.findall(r"`([\w/]+\.py)`", ways)
    names = re.findall(r"`([A-Za-z]*_\w+)`", ways)
    assert {"losses.py", "pose_archives.py"} <= {Path(path).name for path in paths} and "loss_terms" in names
    assert [path for path in paths if not any(f"/{file}".endswith(f"/{path}") for file in files)] == []
    assert [name for name in names if not re.search(rf"\b{name}\b", code)] == []
    assert "`<name>_mult: Advanced[float] = 0.0`" in ways, "tests/test_flags.py allows no further flag in the help"


def test_links_of_the_readme_are_absolute_on_pypi() -> None:
    """The built package rewrites links that are relative to the repository, for pictures and pages to be found."""
    build = tomllib.loads((REPO_ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["hatch"]
    text = (REPO_ROOT / "README.md").read_text(encoding="utf-8")
    assert LINK.search(text), "nothing to rewrite"
    for rule in build["metadata"]["hooks"]["fancy-pypi-readme"]["substitutions"]:
        text = re.sub(rule["pattern"], rule["replacement"], text)
    assert [found[0] for found in LINK.finditer(text)] == []
    pictures = re.findall(r"!\[[^\]]*\]\(([^)]*)\)", text)
    assert pictures and all(picture.startswith("https://raw.githubusercontent.com/") for picture in pictures)


def test_links_out_of_docs_lead_to_the_repository_on_the_site() -> None:
    text = "[a](../README.md#results) ![b](../images/b.png) [c](d.md) [e](../../tools/e.py)"
    config = {"repo_url": "https://r/"}

    def on_site(source: str) -> str:
        page = SimpleNamespace(file=SimpleNamespace(src_uri=source))
        return site_links.on_page_markdown(text, page=page, config=config)

    assert on_site("index.md").startswith("[a](https://r/blob/main/README.md#results)")
    assert on_site("folder/index.md") == (
        "[a](../README.md#results) ![b](../images/b.png) [c](d.md) [e](https://r/blob/main/tools/e.py)"
    )


def test_marked_blocks_are_found(tmp_path: Path) -> None:
    """The checks above pass on pages without blocks; this one shows that blocks and marks are seen at all."""
    page = tmp_path / "page.md"
    page.write_text(
        "text\n\n<!-- tested -->\n```bash\nfalse\n```\n\n```python\nx = 1\n```\n[a](b.md#c) [d](https://e)\n"
    )
    first, second = _blocks(page)
    assert (first.language, first.code, first.line, first.tested) == ("bash", "false\n", 4, True)
    assert (second.language, second.tested) == ("python", False)
    assert subprocess.run(_command(first), check=False).returncode != 0
    assert [found["target"] for found in LINK.finditer(page.read_text())] == ["b.md"]

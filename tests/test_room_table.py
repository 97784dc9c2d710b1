"""The table of import layers in docs/architecture.md follows the contract in pyproject.toml and the docstrings."""

import shutil

import pytest

from tools import room_table


@pytest.fixture
def project(repo_root, tmp_path):
    """A copy of the files that the table is made from."""
    shutil.copytree(
        repo_root / "instantavatar_ns",
        tmp_path / "instantavatar_ns",
        ignore=lambda folder, names: [name for name in names if name.endswith((".npz", ".pyc"))],
    )
    (tmp_path / "docs").mkdir()
    for name in ("pyproject.toml", "docs/architecture.md"):
        shutil.copyfile(repo_root / name, tmp_path / name)
    return tmp_path


def test_page_shows_the_contract():
    assert room_table.main(["--check"]) == 0


def test_every_module_at_the_root_has_a_row(repo_root):
    package = repo_root / "instantavatar_ns"
    rooms = {path.parent.name for path in package.glob("*/__init__.py")} | {path.stem for path in package.glob("*.py")}
    assert {name for layer in room_table.layers(repo_root) for name in layer} == rooms - {"__init__"}


def test_change_of_a_docstring_or_a_layer_is_found_and_written(project, capsys):
    (project / "instantavatar_ns" / "utils" / "__init__.py").write_text('"""Nuts | bolts,\nand more.\n\nDetails."""\n')
    assert room_table.main(["--check"], project) == 1
    assert "run python tools/room_table.py" in capsys.readouterr().err
    assert room_table.main([], project) == 0 == room_table.main(["--check"], project)
    page = project / "docs" / "architecture.md"
    assert "| 1 | `utils/` | Nuts \\| bolts, and more |\n" in page.read_text()

    contract = project / "pyproject.toml"
    contract.write_text(contract.read_text().replace('    "utils",\n', '    "utils",\n    "losses",\n'))
    assert room_table.main(["--check"], project) == 1


def test_room_without_a_docstring_is_named(project):
    (project / "instantavatar_ns" / "utils" / "__init__.py").write_text("")
    with pytest.raises(SystemExit, match=r"utils/__init__\.py needs a docstring"):
        room_table.main(["--check"], project)

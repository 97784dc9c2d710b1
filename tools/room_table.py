"""Write the table of import layers in docs/architecture.md, from the contract in pyproject.toml and from docstrings.

python tools/room_table.py            write the table
python tools/room_table.py --check    end with status 1 where the page differs from it
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- rooms -->\n", "<!-- /rooms -->"


def layers(root: Path) -> list[list[str]]:
    """Return the modules of each layer, the highest layer first, as import-linter's contract lists them."""
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    (contract,) = settings["contracts"]
    return [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]


def room_table(root: Path) -> str:
    """Return the table: a row for each module or folder at the package's root, with its docstring's first paragraph."""
    rows = ["| layer | module or folder | concept |", "|---|---|---|"]
    every = layers(root)
    for level, names in zip(range(len(every), 0, -1), every, strict=True):
        for name in names:
            folder = root / "instantavatar_ns" / name
            shown, file = (
                (f"{name}/", folder / "__init__.py") if folder.is_dir() else (f"{name}.py", folder.with_suffix(".py"))
            )
            paragraph = (ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or "").partition("\n\n")[0]
            if not paragraph:
                raise SystemExit(f"{file} needs a docstring: its first paragraph is shown in docs/architecture.md")
            concept = " ".join(paragraph.split()).removesuffix(".").replace("|", "\\|")
            rows.append(f"| {level} | `{shown}` | {concept} |")
    return "\n".join(rows) + "\n"


def with_table(page: str, table: str) -> str:
    """Return a page's text with the table between its two marks."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"docs/architecture.md needs the marks {BEGIN.strip()} and {END} around its table")
    return f"{before}{begin}\n{table}\n{end}{after}"


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write or check the page, and return the exit status."""
    path = root / "docs" / "architecture.md"
    page = path.read_text(encoding="utf-8")
    expected = with_table(page, room_table(root))
    if page == expected:
        return 0
    if "--check" in arguments:
        print(f"{path}: its table of import layers is old: run python tools/room_table.py", file=sys.stderr)
        return 1
    path.write_text(expected, encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

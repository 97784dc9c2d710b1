"""Print the figures of the code that docs/architecture.md tells in its history.

python -m tools.code_figures             this version, with the flags that tests/test_flags.py counts
python -m tools.code_figures FOLDER      another version, that lies in the folder
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "instantavatar_ns"


class CodeFigures(NamedTuple):
    """How large a version of the package is.

    Attributes:
        modules: Its files of Python.
        lines: Of all of them, empty ones and comments too.
        model_lines: Of `model.py`.
        model_imports: Import statements at the head of `model.py` that take something from this package.
        longest: Name of the longest function that is no Triton kernel.
        longest_lines: Its lines, from its name to its end.
    """

    modules: int
    lines: int
    model_lines: int
    model_imports: int
    longest: str
    longest_lines: int


def code_figures(root: Path) -> CodeFigures:
    """Count a version of the package.

    Args:
        root: Folder that holds the package.
    """
    texts = {path: path.read_text(encoding="utf-8") for path in sorted((root / PACKAGE).rglob("*.py"))}
    trees = {path: ast.parse(text) for path, text in texts.items()}
    model = root / PACKAGE / "model.py"
    imports = [node for node in trees[model].body if isinstance(node, ast.ImportFrom)]
    lengths = {
        f"{path.relative_to(root)}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and not is_kernel(node)
    }
    longest = max(lengths, key=lengths.__getitem__)
    return CodeFigures(
        modules=len(texts),
        lines=sum(text.count("\n") for text in texts.values()),
        model_lines=texts[model].count("\n"),
        model_imports=sum((node.module or "").split(".")[0] == PACKAGE for node in imports),
        longest=longest,
        longest_lines=lengths[longest],
    )


def is_kernel(function: ast.FunctionDef) -> bool:
    """Find out if Triton compiles a function."""
    return any("jit" in ast.unparse(decorator) for decorator in function.decorator_list)


def main(arguments: list[str]) -> None:
    """Print the figures of this version, or of the one in the folder that the arguments name."""
    figures = code_figures(Path(arguments[0]) if arguments else ROOT)._asdict()
    if not arguments:
        from tests.test_flags import our_flags, read_shown_flags

        figures["flags"] = len(our_flags(read_shown_flags()["instant-avatar"]))
    for name, value in figures.items():
        print(f"{name:>14}  {value}")


if __name__ == "__main__":
    main(sys.argv[1:])

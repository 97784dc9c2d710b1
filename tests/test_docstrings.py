"""Rules for docstrings that ruff does not check: their first word, their sections, and one term.

Ruff checks that public definitions have docstrings (D100 to D103), and that `Args:` leaves no parameter out (D417).
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "instantavatar_ns"
FILES = sorted(PACKAGE.rglob("*.py"))
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _places(found: list[tuple[Path, int, str]]) -> str:
    return "".join(f"\n{path.relative_to(PACKAGE.parent)}:{line} {text}" for path, line, text in found)


def _is_public(function: Function) -> bool:
    """Return True if other modules may call a function; kernels are called by their launchers only."""
    return not function.name.startswith("_") and not any("jit" in ast.unparse(each) for each in function.decorator_list)


def _parameters(function: Function) -> list[ast.arg]:
    args = function.args
    one = [each for each in (args.vararg, args.kwarg) if each]
    return [*args.posonlyargs, *args.args, *args.kwonlyargs, *one]


def _outermost_functions(node: ast.AST) -> Iterator[Function]:
    """Yield functions and methods, but none that is defined within another."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, FUNCTIONS):
            yield child
        else:
            yield from _outermost_functions(child)


@pytest.fixture(scope="module")
def modules() -> dict[Path, ast.Module]:
    """Each file of the package, parsed."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def test_docstrings_begin_with_a_verb_or_a_noun(modules):
    """A docstring says what a thing returns, does or is; a question word puts off the noun that readers look for."""
    found = []
    for path, module in modules.items():
        for node in ast.walk(module):
            if isinstance(node, (ast.Module, ast.ClassDef, *FUNCTIONS)):
                first = (ast.get_docstring(node) or "").partition("\n")[0]
                if re.match(r"(what|how|where|whether|which)\b", first, re.IGNORECASE):
                    found.append((path, getattr(node, "lineno", 1), first))
    assert not found, f"begin with a noun or an imperative verb:{_places(found)}"


def test_public_functions_of_several_parameters_explain_each(modules):
    """With two or more parameters, names and types alone leave units, shapes and order open."""
    found = [
        (path, node.lineno, node.name)
        for path, module in modules.items()
        for node in module.body
        if isinstance(node, FUNCTIONS) and _is_public(node) and len(_parameters(node)) >= 2
        if not re.search(r"^Args:$", ast.get_docstring(node) or "", re.MULTILINE)
    ]
    assert not found, f"need `Args:` with shapes and units:{_places(found)}"


def test_public_functions_that_raise_say_so(modules):
    """Callers must know what to catch; a bare `raise` passes on what another function has told.

    Methods without a docstring override one that has it.
    """
    found = []
    for path, module in modules.items():
        for node in _outermost_functions(module):
            docstring = ast.get_docstring(node)
            raises = any(isinstance(each, ast.Raise) and each.exc is not None for each in ast.walk(node))
            if raises and docstring and _is_public(node) and not re.search(r"^Raises:$", docstring, re.MULTILINE):
                found.append((path, node.lineno, node.name))
    assert not found, f"need `Raises:`:{_places(found)}"


def test_gradients_are_with_respect_to_something(modules):
    """Write "gradient with respect to": "gradient to" does not say what is differentiated by what."""
    found = []
    for path, module in modules.items():
        with io.StringIO(path.read_text(encoding="utf-8")) as text:
            tokens = list(tokenize.generate_tokens(text.readline))
        texts = [(each.start[0], each.string) for each in tokens if each.type == tokenize.COMMENT]
        texts += [
            (node.lineno, node.value)
            for node in ast.walk(module)
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        ]
        for line, words in texts:
            if match := re.search(r"\b(gradients?|differentiable)\s+to\s.*", words, re.IGNORECASE):
                found.append((path, line, match.group()))
    assert not found, f'say "with respect to":{_places(found)}'

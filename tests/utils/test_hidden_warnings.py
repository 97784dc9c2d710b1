"""Warnings that are not shown, and all others, which are."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings

import pytest

from instantavatar_ns.utils import hidden_warnings
from instantavatar_ns.utils.hidden_warnings import HARMLESS


def shown(text: str, category: type[Warning], module: str) -> bool:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        hidden_warnings.ignore()
        warnings.warn_explicit(f"{text}. More.", category, "file.py", 1, module)
    return bool(caught)


@pytest.mark.parametrize(("text", "category", "module"), HARMLESS, ids=lambda value: str(value)[-30:])
def test_only_these_warnings_of_these_modules_are_ignored(text: str, category: type[Warning], module: str) -> None:
    assert not shown(text, category, module)
    assert shown(text, category, "somebody.else")
    assert shown(text, category, f"{module}.inner")
    assert shown(text, RuntimeWarning, module)
    assert shown("Something else", category, module)


def test_processes_are_told_by_a_variable() -> None:
    lines = [f"warnings.warn_explicit({text!r}, {kind.__name__}, 'f', 1, {name!r})" for text, kind, name in HARMLESS]
    code = "\n".join(["import warnings", *lines, "warnings.warn('of this process')"])
    environment = os.environ | {"PYTHONWARNINGS": hidden_warnings.as_variable()}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert result.stderr.count("Warning") == 1 and "of this process" in result.stderr

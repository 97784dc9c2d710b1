"""The figures of the code that docs/architecture.md tells."""

from pathlib import Path

import pytest

from tools.code_figures import code_figures, main

MODEL = '''"""A model."""
from dataclasses import dataclass

from instantavatar_ns import a
from instantavatar_ns.b.c import d, e


def short():
    from instantavatar_ns import later
'''
KERNEL = """import triton


@triton.jit
def kernel(
    a,
    b,
):
    return 1


class A:
    @property
    def longest(self):
        a = 1

        return a
"""


def test_counts_are_those_of_the_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A kernel is no function here, and an import counts once whatever it takes."""
    package = tmp_path / "instantavatar_ns"
    (package / "kernels").mkdir(parents=True)
    (package / "model.py").write_text(MODEL)
    (package / "kernels" / "one.py").write_text(KERNEL)
    figures = code_figures(tmp_path)
    assert figures[:4] == (2, MODEL.count("\n") + KERNEL.count("\n"), 9, 2)
    assert figures[4:] == ("instantavatar_ns/kernels/one.py:longest", 4)
    main([str(tmp_path)])
    assert "model_imports  2" in capsys.readouterr().out


def test_model_is_no_hub() -> None:
    figures = code_figures(Path(__file__).parents[1])
    assert figures.model_imports <= 14 and figures.model_lines <= 220

"""The record of the test suite."""

import json
from pathlib import Path

import pytest

from benchmarks.suite import Suite

TESTS = """
import pytest
def test_right(): pass
def test_wrong(): assert False
@pytest.mark.skip(reason="needs a GPU")
def test_left_out(): pass
"""


def test_ends_of_tests_are_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMMIT", "0123456789")
    (tmp_path / "test_small.py").write_text(TESTS)
    (tmp_path / "test_whole.py").write_text("import pytest\npytest.importorskip('no_such_package')\n")
    output = tmp_path / "suite.json"
    output.write_text(json.dumps({"other": 1}))
    code = Suite(output, workers=1, paths=(str(tmp_path),)).main()
    found = json.loads(output.read_text())
    assert code == 1 and found.pop("other") == 1
    (figures,) = found.values()
    assert (figures["passed"], figures["failed"], figures["skipped"]) == (1, 1, 2)
    assert figures["failures"][0].endswith("test_small.test_wrong") and figures["commit"] == "0123456789"
    assert figures["skips"]["needs a GPU"] == 1
    assert any("no_such_package" in reason for reason in figures["skips"])

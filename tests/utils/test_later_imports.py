"""Stand-ins for what is imported later."""

import string

import pytest

from instantavatar_ns.utils.later_imports import StandIn


def test_items_are_those_of_what_it_stands_for() -> None:
    assert StandIn("string", "ascii_lowercase")[3] == string.ascii_lowercase[3]


def test_it_is_no_base_of_a_class() -> None:
    """Python would make another stand-in, of a module that does not exist, and it would fail where it is used."""
    with pytest.raises(ImportError, match=r"string\.Formatter.*import that class later"):

        class _Formatter(StandIn("string", "Formatter")):  # pyright: ignore[reportUntypedBaseClass, reportGeneralTypeIssues]
            pass

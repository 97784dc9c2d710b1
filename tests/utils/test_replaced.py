"""Methods in others' place for a while."""

from __future__ import annotations

import pytest

from instantavatar_ns.utils.replaced import replaced


class Speaker:
    """Says its own word."""

    def word(self) -> str:
        return "own"


def test_methods_come_back_one_after_the_other() -> None:
    speaker = Speaker()
    with replaced(speaker, "word", lambda: "outer"):
        with replaced(speaker, "word", lambda: "inner"):
            assert speaker.word() == "inner"
        assert speaker.word() == "outer"
    assert speaker.word() == "own" and not vars(speaker)


def test_method_comes_back_after_an_error() -> None:
    speaker = Speaker()
    with pytest.raises(KeyError), replaced(speaker, "word", lambda: "other"):
        raise KeyError
    assert speaker.word() == "own"

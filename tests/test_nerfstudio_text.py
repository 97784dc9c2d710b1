"""The text for nerfstudio's documentation: its entry of external methods, and the page, fit this package."""

from __future__ import annotations

import re
import runpy
import sys
from importlib import import_module
from pathlib import Path

import pytest
from nerfstudio.configs import external_methods as stock

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "nerfstudio"


def entry_points(group: str) -> dict[str, str]:
    """Names of the package's entry points, and the objects that they name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return project["entry-points"][f"nerfstudio.{group}"]


@pytest.fixture
def entry(monkeypatch: pytest.MonkeyPatch) -> stock.ExternalMethod:
    """The method that the entry adds to nerfstudio's."""
    methods: list[stock.ExternalMethod] = []
    monkeypatch.setattr(stock, "external_methods", methods)
    runpy.run_path(str(FOLDER / "external_methods.py"))
    (method,) = methods
    return method


def test_entry_has_the_methods_of_the_package(entry: stock.ExternalMethod) -> None:
    described = {}
    for name, target in entry_points("method_configs").items():
        module, attribute = target.split(":")
        described[name] = getattr(import_module(module), attribute).description
    assert dict(entry.configurations) == described


def test_nerfstudio_lists_them_and_says_how_to_install(
    entry: stock.ExternalMethod, monkeypatch: pytest.MonkeyPatch
) -> None:
    configs, descriptions = stock.get_external_methods()
    assert set(configs) == set(entry_points("method_configs"))
    assert all(text.startswith("[External") for text in descriptions.values())
    printed: list[str] = []
    monkeypatch.setattr("nerfstudio.configs.external_methods.CONSOLE.print", printed.append)
    monkeypatch.setattr("nerfstudio.configs.external_methods.Confirm.ask", lambda *_, **__: False)
    with pytest.raises(SystemExit):
        stock.ExternalMethodDummyTrainerConfig(method_name="instant-avatar", method=entry)
    assert f"pip install {entry.pip_package}" in printed[0], "what it installs is what it says"


def test_page_has_what_nerfstudio_asks_for(entry: stock.ExternalMethod) -> None:
    text = (FOLDER / "instant_avatar.md").read_text(encoding="utf-8")
    assert re.findall("^## (.*)$", text, re.M)[:4] == [
        "Installation",
        "Running InstantAvatar",
        "Requirements",
        "Method",
    ]
    assert f"pip install {entry.pip_package}" in text
    tables = set(re.findall(r"^\| `([\w-]+)`", text, re.M))
    assert tables == {*entry_points("method_configs"), *entry_points("dataparser_configs")}
    assert entry.instructions.split("methods/")[1].split(".html")[0] == "instant_avatar", "the page's name"
    # Pictures are hosted elsewhere, on this package's own pages.
    pictures = re.findall(r'src="https://instantavatar-ns.github.io/instantavatar_ns/([^"]+)"', text)
    assert pictures and text.count("<img") == len(pictures)
    assert all((ROOT / "docs" / picture).is_file() for picture in pictures)

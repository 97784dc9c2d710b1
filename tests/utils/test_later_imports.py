"""Stand-ins for what is imported later."""

import os
import string
import subprocess
import sys
from pathlib import Path

import pytest

from instantavatar_ns.utils.later_imports import StandIn

_MEASURES = """
import sys
import torch
from instantavatar_ns.metrics import image_metrics
image = torch.rand(32, 32, 3)
print(image_metrics(image, 0.5 * image, None)["ssim"])
print("scipy.signal" in sys.modules)
"""


def test_items_are_those_of_what_it_stands_for() -> None:
    assert StandIn("string", "ascii_lowercase")[3] == string.ascii_lowercase[3]


def test_it_is_no_base_of_a_class() -> None:
    """Python would make another stand-in, of a module that does not exist, and it would fail where it is used."""
    with pytest.raises(ImportError, match=r"string\.Formatter.*import that class later"):

        class _Formatter(StandIn("string", "Formatter")):  # pyright: ignore[reportUntypedBaseClass, reportGeneralTypeIssues]
            pass


def test_images_are_compared_without_libraries_of_text_and_sound(tmp_path: Path) -> None:
    """Where transformers is installed, torchmetrics imports it: seconds, for metrics of texts."""
    (tmp_path / "transformers").mkdir()
    (tmp_path / "transformers" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "transformers-4.50.0.dist-info").mkdir()
    metadata = "Metadata-Version: 2.1\nName: transformers\nVersion: 4.50.0\n"
    (tmp_path / "transformers-4.50.0.dist-info" / "METADATA").write_text(metadata)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "TORCH_HOME": str(tmp_path), "HTTPS_PROXY": "http://127.0.0.1:1"}
    command = [sys.executable, "-c", _MEASURES]
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    similarity, is_imported = done.stdout.split()[-2:]
    assert 0 < float(similarity) < 1 and is_imported == "False"

"""Packages from npm, for tests that hand files to programs of others."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest


def npm_packages(folder: Path, *wanted: str) -> Path:
    """Install packages in a folder and return it; the test is skipped where they cannot be had.

    Args:
        folder: Existing folder.
        wanted: Names with versions.
    """
    if shutil.which("npm") is None or shutil.which("node") is None:
        pytest.skip("no node and npm on PATH (Debian: apt-get install nodejs npm)")
    (folder / "package.json").write_text("{}")
    command = ["npm", "install", "--no-audit", "--no-fund", "--prefer-offline", *wanted]
    try:
        finished = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"npm could not fetch {', '.join(wanted)} within two minutes")
    if finished.returncode != 0:
        pytest.skip(f"npm could not fetch {', '.join(wanted)}: {finished.stderr[-300:]}")
    return folder


def gltf_issues(packages: Path, path: Path) -> dict:
    """Issues that Khronos' validator, a package of `packages`, finds in a glTF file.

    Args:
        packages: Folder with the package gltf-validator.
        path: A GLB, VRM or VRMA file.
    """
    script = """
const validator = require("gltf-validator"), fs = require("fs");
validator.validateBytes(new Uint8Array(fs.readFileSync(process.argv[1])))
  .then((report) => console.log(JSON.stringify(report.issues)));
"""
    finished = subprocess.run(
        ["node", "-e", script, path], cwd=packages, capture_output=True, text=True, timeout=120, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return json.loads(finished.stdout)

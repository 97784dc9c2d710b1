"""Bundle the libraries of the exported page into one script: three.js, and the decoder of compressed meshes.

python tools/build_page/build.py            write the bundle and what belongs to it
python tools/build_page/build.py --check    end with status 1 where the package's files differ from it

Needs node and npm (Debian: apt-get install nodejs npm). `package-lock.json` pins every package by its hash, so that the
same bundle is made everywhere. For a newer three.js: `npm install --package-lock-only --save-exact three@VERSION` in
this folder, this command, and the tests of tests/export/test_page.py.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).resolve().parent
PAGE = HERE.parents[1] / "instantavatar_ns" / "export" / "page"
BUNDLE, NOTE, LICENSES = "three.min.js", "three.json", "THREE_LICENSES.txt"
_SOURCES = ("package.json", "package-lock.json", "three_parts.js")
_BUNDLED = {"three": "LICENSE", "meshoptimizer": "LICENSE.md"}
# esbuild's script is a wrapper of the program that comes in a package of its own, which needs no installing.
_ESBUILD = (
    "node_modules/esbuild/bin/esbuild three_parts.js --bundle --minify --format=iife --global-name=three "
    "--target=es2022 --charset=utf8 --legal-comments=none --outfile=bundle.js"
).split()


def build() -> dict[str, bytes]:
    """Bundle in a temporary folder; the content of each file by its name.

    Raises:
        CalledProcessError: npm or esbuild failed; what they said is on the terminal.
    """
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name in _SOURCES:
            shutil.copy(HERE / name, folder)
        subprocess.run(["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, check=True)
        subprocess.run(["node", *_ESBUILD], cwd=folder, check=True)
        packages = json.loads((folder / "package-lock.json").read_text(encoding="utf-8"))["packages"]
        versions = {name: packages[f"node_modules/{name}"]["version"] for name in (*_BUNDLED, "esbuild")}
        licenses = "\n\n".join(
            f"{name} {versions[name]}\n\n{(folder / 'node_modules' / name / file).read_text(encoding='utf-8').strip()}"
            for name, file in _BUNDLED.items()
        )
        # The licences ask to stay with every copy, and a page is a copy.
        bundle = f"/*!\n{licenses}\n*/\n{(folder / 'bundle.js').read_text(encoding='utf-8')}".encode()
    note = {"made by": "tools/build_page/build.py", "versions": versions, "sha256": hashlib.sha256(bundle).hexdigest()}
    return {BUNDLE: bundle, NOTE: f"{json.dumps(note, indent=1)}\n".encode(), LICENSES: f"{licenses}\n".encode()}


def main() -> int:
    """Write the files, or compare them."""
    files = build()
    if "--check" in sys.argv[1:]:
        other = [name for name, content in files.items() if (PAGE / name).read_bytes() != content]
        print(f"differ from what {HERE.name} makes: {', '.join(other)}" if other else "the bundle is as it should be")
        return 1 if other else 0
    for name, content in files.items():
        (PAGE / name).write_bytes(content)
        print(f"{PAGE / name}: {len(content)} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Fetch the browser libraries of the page from npm, check them, and write them with their hashes.

`python tools/vendor.py` needs npm. What is vendored, from which version, stands in `vendored.json`; a test compares
the files with their hashes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, Final

VENDOR: Final = Path(__file__).parent.parent / "src/penstock/http/page/vendor"

#: Languages that are highlighted, by their modules' names there.
LANGUAGES: Final = (  # noqa: SIM905 - read as words
    "bash c css diff docker go html ini java js jsdoc json lua make md pl py regex rs sql todo toml ts uri xml yaml"
).split()

#: Version, licence, and each file there with its name here.
PACKAGES: Final[dict[str, tuple[str, str, dict[str, str]]]] = {
    # One file with preact in it: preact by itself needs a map of imports in the page, an inline script.
    "htm": ("3.1.1", "Apache-2.0", {"preact/standalone.module.js": "preact.js", "LICENSE": "htm.LICENSE"}),
    "preact": ("10.9.0", "MIT", {"LICENSE": "preact.LICENSE"}),
    "uplot": (
        "1.6.32",
        "MIT",
        {"dist/uPlot.iife.min.js": "uplot.js", "dist/uPlot.min.css": "uplot.css", "LICENSE": "uplot.LICENSE"},
    ),
    "@speed-highlight/core": (
        "2.1.0",
        "CC0-1.0",
        {"dist/tokenize.js": "tokenize.js", "LICENSE": "tokenize.LICENSE"}
        | {f"dist/languages/{name}.js": f"languages/{name}.js" for name in LANGUAGES},
    ),
}

#: What is written behind a file, by its name here. uPlot's only small file is a classic script, which cannot be loaded
#: when it is wanted, under trusted types: a module can.
APPENDED: Final = {"uplot.js": b"\nexport default uPlot;\n"}


def main() -> None:
    """Fetch all packages, and write their files and `vendored.json`."""
    written = [vendor(name, *what) for name, what in PACKAGES.items()]
    (VENDOR / "vendored.json").write_text(json.dumps({"packages": written}, indent=2) + "\n")


def vendor(name: str, version: str, licence: str, files: dict[str, str]) -> dict[str, Any]:
    """Write one package's files; return its entry."""
    with tempfile.TemporaryDirectory() as folder:
        command = ["npm", "pack", "--json", "--pack-destination", folder, f"{name}@{version}"]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)[0]  # noqa: S603
        tarball = Path(folder) / told["filename"].replace("@", "").replace("/", "-")
        digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
        if told["integrity"] != f"sha512-{digest}":
            sys.exit(f"{name} {version} is not what the registry says: sha512-{digest}")
        hashes = {}
        with tarfile.open(tarball) as archive:
            for there, here in files.items():
                member = archive.extractfile(f"package/{there}")
                if member is None:
                    sys.exit(f"{name} {version} has no file {there}")
                data = member.read() + APPENDED.get(here, b"")
                (VENDOR / here).parent.mkdir(parents=True, exist_ok=True)
                (VENDOR / here).write_bytes(data)
                hashes[here] = hashlib.sha256(data).hexdigest()
    return {"name": name, "version": version, "licence": licence, "integrity": told["integrity"], "sha256": hashes}


if __name__ == "__main__":
    main()

"""Build hook of compiled wheels: adds the bus's hot path as native code (``tools/compile.py``).

Off by default, so that ``hatchling build`` makes the wheel for every platform. On with
``HATCH_BUILD_HOOK_ENABLE_CUSTOM=true``: then the wheel is that of this interpreter and this platform, and pip prefers
it where it fits.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompiledWheelHook(BuildHookInterface[Any]):
    """Compiles before the files are gathered, and removes what was compiled afterwards."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the compiled files to a wheel; one for editing gets none.

        Raises:
            subprocess.CalledProcessError: There is no compiler, or it failed.
        """
        if version == "editable":
            return
        self._scratch = tempfile.TemporaryDirectory(prefix="penstock-compiled-")
        into = Path(self._scratch.name)
        command = [sys.executable, str(Path(self.root, "tools", "compile.py")), "--into", str(into)]
        subprocess.run(command, check=True)  # noqa: S603 - our own program
        for path in sorted(into.rglob("*.so")):
            build_data["force_include"][str(path)] = path.relative_to(into).as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002 - the hook's signature
        """Remove the compiled files; the wheel has them."""
        if version != "editable":
            self._scratch.cleanup()

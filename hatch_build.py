"""Adds the manual page, made from the table of commands, to the wheel."""

from __future__ import annotations

import importlib
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class ManualPage(BuildHookInterface):  # type: ignore[type-arg]  # its parameter is the builder's configuration
    """Writes agentd.1 where the wheel installs it: share/man/man1."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002  hatchling's signature
        """Make the page before the wheel is packed."""
        sys.path.insert(0, self.root)
        try:
            man = importlib.import_module("agentd.cli.man")
        finally:
            sys.path.remove(self.root)
        self.made = tempfile.TemporaryDirectory(prefix="agentd-man-")
        page = Path(self.made.name, "agentd.1")
        page.write_text(man.page(self.metadata.version), encoding="utf-8")
        build_data["shared_data"][str(page)] = "share/man/man1/agentd.1"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:  # noqa: ARG002  likewise
        """Leave nothing behind."""
        self.made.cleanup()

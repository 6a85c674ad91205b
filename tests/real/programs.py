"""The real programs: exact versions from their index, and what makes each talk to the test's model server alone.

They go below the directory that AGENTD_REAL_DIR names, else below one in the temporary directory, and stay there.
By hand: python tests/real/programs.py [NAME...]
"""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

MACHINE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
INSTALL_S = 600.0
MAY_INSTALL = os.environ.get("AGENTD_REAL") == "install"  # the long form of the tests, too


class NotThere(Exception):
    """Raised when a program cannot be had here; says why."""


@dataclass(frozen=True)
class Program:
    """One program: where it comes from, and how it is told about the model server."""

    name: str  # also of the built-in profile and of the command
    package: str
    version: str
    executable: Callable[[], str]  # below node_modules; the native one, where the package has one
    environment: Mapping[str, str]
    home: Callable[[Path, Path, str], dict[str, str]]  # home, working directory, url -> files of the home
    alters: tuple[tuple[str, str], ...] = ()  # what it, or its profile on purpose, makes of some texts

    def typed(self, text: str) -> str:
        """Return what becomes of a text on its way to the model."""
        for before, after in self.alters:
            text = text.replace(before, after)
        return text

    def seed(self, home: Path, cwd: Path, url: str) -> dict[str, str]:
        """Write the files that a user of the program would have, and return its environment."""
        for name, text in self.home(home, cwd, url).items():
            path = home / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return {name: value.replace("{url}", url) for name, value in self.environment.items()}


def _claude(home: Path, cwd: Path, url: str) -> dict[str, str]:
    state = {
        "hasCompletedOnboarding": True,  # else it asks its maker's server something first, and ends
        "hasSeenAutoDefaultNotice": True,
        "theme": "dark",
        "customApiKeyResponses": {"approved": ["test"], "rejected": []},
        "projects": {str(cwd): {"hasTrustDialogAccepted": True}},
    }
    return {".claude.json": json.dumps(state)}


def _codex(home: Path, cwd: Path, url: str) -> dict[str, str]:
    return {
        ".codex/config.toml": f"""
model = "test-model"
model_provider = "loopback"
check_for_update_on_startup = false
[model_providers.loopback]
name = "loopback"
base_url = "{url}/v1"
env_key = "OPENAI_API_KEY"
wire_api = "responses"
[analytics]
enabled = false
[projects."{cwd}"]
trust_level = "trusted"
"""
    }


def _opencode(home: Path, cwd: Path, url: str) -> dict[str, str]:
    model = {"name": "test-model", "limit": {"context": 200_000, "output": 8_000}}
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "loopback",
        "options": {"baseURL": f"{url}/v1", "apiKey": "test"},
        "models": {"test-model": model},
    }
    settings = {
        "autoupdate": False,
        "share": "disabled",
        "model": "loopback/test-model",
        "small_model": "loopback/test-model",
        "provider": {"loopback": provider},
        "permission": {"bash": "ask", "edit": "ask"},
    }
    return {".config/opencode/opencode.json": json.dumps(settings)}


def _gemini(home: Path, cwd: Path, url: str) -> dict[str, str]:
    settings = {
        "general": {"disableAutoUpdate": True, "enableAutoUpdate": False, "enableAutoUpdateNotification": False},
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "security": {"auth": {"selectedType": "gemini-api-key"}, "folderTrust": {"enabled": True}},
        "model": {"name": "gemini-2.5-flash"},
        "ide": {"enabled": False, "hasSeenNudge": True},
    }
    trusted = {str(cwd): "TRUST_FOLDER"}
    return {".gemini/settings.json": json.dumps(settings), ".gemini/trustedFolders.json": json.dumps(trusted)}


def _opencode_executable() -> str:
    cpu = Path("/proc/cpuinfo")
    old = MACHINE == "x64" and cpu.exists() and " avx2 " not in cpu.read_text()
    return f"opencode-linux-{MACHINE}{'-baseline' if old else ''}/bin/opencode"


def _codex_executable() -> str:
    triple = f"{platform.machine()}-unknown-linux-musl"
    return f"@openai/codex-linux-{MACHINE}/vendor/{triple}/bin/codex"


PROGRAMS = {
    program.name: program
    for program in (
        Program(
            "claude",
            "@anthropic-ai/claude-code",
            "2.1.329",
            lambda: f"@anthropic-ai/claude-code-linux-{MACHINE}/claude",
            {
                "ANTHROPIC_BASE_URL": "{url}",
                "ANTHROPIC_API_KEY": "test",
                "DISABLE_AUTOUPDATER": "1",
                "DISABLE_TELEMETRY": "1",
                "DISABLE_ERROR_REPORTING": "1",
                "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
                "CLAUDE_CODE_DISABLE_OFFICIAL_MARKETPLACE_AUTOINSTALL": "1",
            },
            _claude,
            (("\t", "    "), ("@", "\\@")),
        ),
        Program("codex", "@openai/codex", "0.169.0", _codex_executable, {"OPENAI_API_KEY": "test"}, _codex),
        Program(
            "opencode",
            "opencode-ai",
            "1.18.33",
            _opencode_executable,
            {
                "OPENCODE_DISABLE_AUTOUPDATE": "1",
                "OPENCODE_DISABLE_MODELS_FETCH": "1",
                "OPENCODE_DISABLE_LSP_DOWNLOAD": "1",
                "OPENCODE_DISABLE_SHARE": "1",
            },
            _opencode,
            (("@", "\\@"),),
        ),
        Program(
            "gemini",
            "@google/gemini-cli",
            "0.61.0",
            lambda: "@google/gemini-cli/bundle/gemini.js",
            {
                "GEMINI_API_KEY": "test",
                "GOOGLE_GEMINI_BASE_URL": "{url}",
                "GEMINI_CLI_NO_RELAUNCH": "true",
                "NO_BROWSER": "1",
            },
            _gemini,
            (("@", "\\@"),),
        ),
    )
}


def directory() -> Path:
    """Return where the programs are kept."""
    return Path(os.environ.get("AGENTD_REAL_DIR") or Path(tempfile.gettempdir(), "agentd-real"))


def installed(program: Program) -> Path | None:
    """Return the program's executable when exactly this version is there."""
    modules = directory() / program.name / "node_modules"
    about = modules / program.package / "package.json"
    if not about.exists() or json.loads(about.read_text())["version"] != program.version:
        return None
    executable = modules / program.executable()
    return executable if executable.exists() else None


def install(program: Program) -> Path:
    """Install the program if it is not there; raises NotThere saying what is missing."""
    if found := installed(program):
        return found
    if shutil.which("npm") is None:
        raise NotThere(f"{program.name} comes from npm, and there is no npm")
    place = directory() / program.name
    place.mkdir(parents=True, exist_ok=True)
    (place / "package.json").write_text('{"private": true}')
    wanted = f"{program.package}@{program.version}"
    words = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--save-exact", wanted]
    try:
        done = subprocess.run(words, cwd=place, capture_output=True, text=True, timeout=INSTALL_S)
    except subprocess.TimeoutExpired:
        raise NotThere(f"npm did not install {wanted} within {INSTALL_S:g} s") from None
    found = installed(program)
    if found is None:
        raise NotThere(f"npm could not install {wanted}: {done.stderr.strip()[-300:]}")
    return found


def links() -> Path:
    """Return a directory with a command for each program that is installed by now."""
    place = directory() / "bin"
    place.mkdir(exist_ok=True)
    for program in PROGRAMS.values():
        if executable := installed(program):
            executable.chmod(executable.stat().st_mode | 0o111)
            link = place / program.name
            link.unlink(missing_ok=True)
            link.symlink_to(executable)
    return place


if __name__ == "__main__":
    for name in sys.argv[1:] or PROGRAMS:
        print(name, install(PROGRAMS[name]), flush=True)

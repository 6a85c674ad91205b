"""The manual page: whole, and without a complaint of the programs that show it; and the wheel that brings it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from agentd.cli.commands import COMMANDS
from agentd.cli.man import page

ROOT = Path(__file__).parents[2]
CHECKS = {  # what complains on stderr, or exits with something else than 0
    "mandoc": ["mandoc", "-T", "lint", "-W", "warning"],
    "groff": ["groff", "-man", "-Tascii", "-ww", "-z"],
    "man": ["man", "--warnings", "-l"],
}


def test_it_names_every_command_and_option():
    text = page("1.2.3")
    assert text.startswith('.TH AGENTD 1 "" "agentd 1.2.3"')
    plain = re.sub(r"\\f[BIR]", "", text).replace("\\-", "-")
    for command in COMMANDS.values():
        if not command.hidden:
            part = plain.split(f"\n.TP\n{command.words}", 1)[1].split("\n.RE\n", 1)[0]
            assert all(option.name in part for option in command.options[:-2]), command.words
    assert re.findall(r"^\.SH (\w+)", text, re.MULTILINE)[:3] == ["NAME", "SYNOPSIS", "DESCRIPTION"]
    assert text.count("\n.RS\n") == text.count("\n.RE\n")
    assert not re.search(r"^['.](?!(TH|SH|TP|B|I|BR|RI|IR|PP|br|RS|RE)\b)", text, re.MULTILINE)


@pytest.mark.parametrize("name", CHECKS)
def test_programs_that_show_it_do_not_complain(name, tmp_path, agentd):
    if shutil.which(name) is None:
        pytest.skip(f"no {name} here")
    if name == "man" and sys.platform == "darwin":
        pytest.skip("this man has other options")
    (tmp_path / "agentd.1").write_text(agentd("man").out)
    done = subprocess.run([*CHECKS[name], str(tmp_path / "agentd.1")], capture_output=True, text=True, timeout=30)
    if name == "mandoc":  # the page has no date: the same commands make the same page
        assert [line for line in done.stdout.splitlines() if "missing date" not in line] == []
        return
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    if name == "man":
        assert "agentd spawn demo -n 2 --team review" in done.stdout
        assert 'agentd call agents.list \'{"state": "idle"}\'' in done.stdout


def test_the_wheel_brings_it_and_the_command(tmp_path):
    pytest.importorskip("hatchling", reason="builds the wheel; the extra `dev` has it")
    argv = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (name,) = [name for name in files.namelist() if name.endswith("share/man/man1/agentd.1")]
        assert b".SH NAME" in files.read(name)
        (script,) = [info for info in files.infolist() if info.filename.endswith("/scripts/agentd")]
        assert script.external_attr >> 16 & 0o111 == 0o111
        assert files.read(script).startswith(b"#!python\n")  # which installers replace by their own
        assert not [name for name in files.namelist() if name.endswith("entry_points.txt")]

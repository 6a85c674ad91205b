"""Commands that need no daemon: doctor, config, classify, completion, version."""

from __future__ import annotations

import json
import tomllib

import pytest

from agentd import __version__
from agentd.cli import doctor


def test_doctor_has_a_row_for_everything(agentd, directory):
    ran = agentd("doctor", "--json")
    rows = {row["check"]: row for row in json.loads(ran.out)["checks"]}
    assert {
        "python",
        "tmux",
        "sqlite",
        "configuration",
        "socket path",
        "directory",
        "disk",
        "open files",
    } <= rows.keys()
    assert {row["result"] for row in rows.values()} <= {"ok", "warn", "fail"}
    assert all(row["todo"] for row in rows.values() if row["result"] != "ok")
    assert "agents run as your own user" in rows["isolation"]["found"]
    assert ran.code == (1 if any(row["result"] == "fail" for row in rows.values()) else 0)
    assert "agents run as your own user" in agentd("doctor").out
    assert not directory.exists()


@pytest.mark.parametrize(
    ("said", "result"),
    [
        *(
            ("tmux 1.8", "fail"),
            ("tmux 3.1c", "fail"),
            ("tmux 3.2a", "warn"),
            ("tmux 3.3a", "warn"),
            ("tmux 3.6", "warn"),
        ),
        *(
            ("tmux 3.7", "ok"),
            ("tmux next-3.8", "ok"),
            ("tmux master", "warn"),
            ("tmux openbsd-7.8", "ok"),
            ("", "warn"),
        ),
    ],
)
def test_doctor_knows_tmux_versions(said, result, agentd, tmp_path, monkeypatch):
    shim = tmp_path / "tmux"
    shim.write_text(f"#!/bin/sh\necho {said}\n")
    shim.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    rows = {row["check"]: row for row in json.loads(agentd("doctor", "--json").out)["checks"]}
    assert rows["tmux"]["result"] == result


def test_doctor_without_tmux(agentd, monkeypatch):
    monkeypatch.setenv("AGENTD_TMUX__BINARY", "no-such-tmux")
    ran = agentd("doctor")
    assert ran.code == 1
    assert "no program `no-such-tmux`" in ran.out


def test_doctor_sees_open_directories_bad_settings_and_long_paths(agentd, directory, monkeypatch):
    directory.mkdir(mode=0o755)
    (directory / "config.toml").write_text("[tmux]\nwidht = 3\n")
    rows = {row["check"]: row for row in json.loads(agentd("doctor", "--json").out)["checks"]}
    assert rows["directory"]["result"] == "fail"
    assert "chmod 700" in rows["directory"]["todo"]
    assert rows["configuration"]["result"] == "fail"
    monkeypatch.setenv("AGENTD_DIR", "/tmp/" + "x" * 120)
    rows = {row["check"]: row for row in json.loads(agentd("doctor", "--json").out)["checks"]}
    assert rows["socket path"]["result"] == "fail"


def test_doctor_compares_versions_with_the_daemon(agentd, served):
    served.answers.daemon_status = lambda _: {"version": "0.0.1", "pid": 7}
    rows = {row["check"]: row for row in json.loads(agentd("doctor", "--json").out)["checks"]}
    assert rows["daemon"]["result"] == "warn"
    served.answers.daemon_status = lambda _: {"version": __version__, "pid": 7}
    assert doctor._daemon()[1] == "ok"


def test_config_show_says_where_values_come_from(agentd, directory, monkeypatch, served):
    directory.mkdir()
    (directory / "config.toml").write_text("[tmux]\nwidth = 100\n")
    monkeypatch.setenv("AGENTD_TMUX__HEIGHT", "40")
    served.answers.daemon_status = lambda _: {"overrides": ["agents.max=7"]}
    rows = {row["key"]: row for row in json.loads(agentd("config", "show", "--json").out)}
    assert (rows["tmux.width"]["value"], rows["tmux.width"]["origin"]) == (100, str(directory / "config.toml"))
    assert (rows["tmux.height"]["value"], rows["tmux.height"]["origin"]) == (40, "$AGENTD_TMUX__HEIGHT")
    assert (rows["agents.max"]["value"], rows["agents.max"]["origin"]) == (7, "--set agents.max")
    assert "tmux.width" in agentd("config", "show").out
    monkeypatch.setenv("AGENTD_TMUX__HEIGHT", "many")
    ran = agentd("config", "show")
    assert (ran.code, ran.err.count("\n")) == (2, 1)


def test_config_init_never_overwrites(agentd, directory):
    assert agentd("config", "init").code == 0
    file = directory / "config.toml"
    tomllib.loads(file.read_text())
    file.write_text("# mine\n")
    assert agentd("config", "init").code == 1
    assert file.read_text() == "# mine\n"
    assert json.loads(agentd("config", "path", "--json").out)["config"] == str(file)


def test_classify_a_saved_screen_with_and_without_colours(agentd, tmp_path):
    (tmp_path / "plain").write_text("$ \n")
    (tmp_path / "coloured").write_text("\x1b[1;32m$\x1b[0m \x1b]8;;http://x\x1b\\\x1b]8;;\x1b\\\n")
    answers = [
        json.loads(agentd("profile", "classify", "sh", str(tmp_path / f), "--json").out) for f in ("plain", "coloured")
    ]
    assert answers[0] == answers[1]
    assert {"state", "reason", "rule", "draft"} <= answers[0].keys()
    assert answers[0]["state"] == "idle"
    dead = json.loads(agentd("profile", "classify", "sh", str(tmp_path / "plain"), "--dead", "--json").out)
    assert dead["state"] == "stopped"
    told = agentd("profile", "classify", "sh", str(tmp_path / "plain"))
    assert [line.split()[0] for line in told.out.splitlines()][:4] == ["state", "reason", "rule", "draft"]


def test_classify_tells_a_hint_from_a_draft_by_its_colour(agentd, tmp_path):
    lines = ["─" * 80, "❯\xa0\x1b[7mF\x1b[0;2mix the tests\x1b[0m", "─" * 80, "  ⏸ manual mode on"]
    (tmp_path / "hint").write_text("\n".join(lines))
    (tmp_path / "draft").write_text("\n".join(lines).replace("\x1b[0;2m", "\x1b[0m"))
    answers = [
        json.loads(agentd("profile", "classify", "claude", str(tmp_path / f), "--json").out) for f in ("hint", "draft")
    ]
    assert [(answer["state"], answer["draft"]) for answer in answers] == [("idle", False), ("idle", True)]


def test_classify_is_told_the_title(agentd, tmp_path):
    (tmp_path / "screen").write_text("› Ask Codex to do anything\n\n  model · ~/x\n")
    titles = {"⠧ x": "working", "x": "idle"}
    for title, state in titles.items():
        ran = agentd("profile", "classify", "codex", str(tmp_path / "screen"), "--title", title, "--json")
        assert json.loads(ran.out)["state"] == state


def test_classify_refuses_what_is_no_screen_in_one_sentence(agentd, tmp_path, directory):
    (tmp_path / "screen").write_text("$ \n")
    (tmp_path / "binary").write_bytes(b"\x7fELF\0\1")
    rows = [
        ("nobody", "screen", 5, "no profile is named"),
        ("sh", "none", 5, "no file"),
        ("sh", "binary", 2, "binary data"),
        ("sh", ".", 2, "cannot read"),
    ]
    for profile, file, code, words in rows:
        ran = agentd("profile", "classify", profile, str(tmp_path / file))
        assert (ran.code, ran.out, ran.err.count("\n")) == (code, "", 1), ran
        assert words in ran.err
    (directory / "profiles").mkdir(parents=True)
    (directory / "profiles" / "mine.toml").write_text('command = "x"\n[[rules]]\nstate = "idle"\nscreen = "("\n')
    ran = agentd("profile", "classify", "mine", str(tmp_path / "screen"))
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "mine.toml, line 4: rules[1].screen: the pattern '(' is not valid" in ran.err


def test_version_and_schema(agentd):
    assert agentd("version").out == agentd("--version").out == f"agentd {__version__}\n"
    assert json.loads(agentd("version", "--json").out)["version"] == __version__
    assert "agents.spawn" in json.loads(agentd("schema", "--json").out)["calls"]
    described = agentd("schema", "--openapi")
    assert json.loads(described.out)["info"]["version"] == __version__
    assert described.out.count("\n") > 1000
    one_line = agentd("schema", "--openapi", "--json").out
    assert (one_line.count("\n"), json.loads(one_line)) == (1, json.loads(described.out))

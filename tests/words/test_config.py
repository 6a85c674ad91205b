"""Configuration: defaults, file, environment, --set; each value knows where it came from."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd.config import Config, load, template
from agentd.errors import InvalidValue

NOWHERE = "/nonexistent/config.toml"


def test_without_anything_all_is_default() -> None:
    config = load(NOWHERE, {})
    assert config == Config()
    assert {row["origin"] for row in config.rows()} == {"default"}


def test_every_setting_has_a_sentence_and_a_default_that_it_accepts() -> None:
    for row in Config().rows():
        assert row["doc"]
        text = ",".join(row["default"]) if isinstance(row["default"], tuple) else row["default"]
        again = load(NOWHERE, {}, [f"{row['key']}={text}"])
        assert [r["value"] for r in again.rows()] == [r["default"] for r in again.rows()]


def test_later_ones_win_and_say_so(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text("[tmux]\nwidth = 101\nheight = 31\nbinary = 'tmux-a'\n[courier]\nlease_s = 3\n")
    environ = {"AGENTD_TMUX__HEIGHT": "32", "AGENTD_TMUX__BINARY": "tmux-b", "AGENTD_SOCKET": "/x", "HOME": "/h"}
    config = load(str(path), environ, ["tmux.binary=tmux-c", " mailbox.journal = off "])
    assert (config.tmux.width, config.tmux.height, config.tmux.binary) == (101, 32, "tmux-c")
    assert config.mailbox.journal is False
    assert config.courier.lease_s == 3.0
    assert type(config.courier.lease_s) is float
    origins = {row["key"]: row["origin"] for row in config.rows() if row["origin"] != "default"}
    assert origins == {
        "tmux.width": str(path),
        "tmux.height": "$AGENTD_TMUX__HEIGHT",
        "tmux.binary": "--set tmux.binary",
        "mailbox.journal": "--set mailbox.journal",
        "courier.lease_s": str(path),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[tmux]\nwidht = 1", "{path}: no setting `tmux.widht`"),
        ("[tmuxx]\nwidth = 1", "{path}: no section `tmuxx` in the configuration"),
        ('[tmux]\n"a\\nb" = 1', "{path}: no setting `tmux.a\\nb`"),
        ("width = 1", "{path}: `width` stands outside a section"),
        ("[tmux]\nwidth = 'x'", "{path}: tmux.width is 'x'; it must be a whole number"),
        ("[tmux]\nwidth = 1.5", "{path}: tmux.width is 1.5; it must be a whole number"),
        ("[tmux]\nwidth = true", "{path}: tmux.width is True; it must be a whole number"),
        ("[tmux]\nwidth = 19", "{path}: tmux.width is 19; it must be from 20 to 1000"),
        ("[tmux]\nbinary = 1", "{path}: tmux.binary is 1; it must be a text"),
        ("[mailbox]\njournal = 1", "{path}: mailbox.journal is 1; it must be true or false"),
        (
            "[mailbox]\nmax_inbox_messages = 1",
            "{path}: mailbox.max_inbox_messages is 1; it must be from 10 to 10000000",
        ),
        ("[courier]\nlease_s = nan", "{path}: courier.lease_s is nan; it must be a number"),
        ("[courier]\nlease_s = inf", "{path}: courier.lease_s is inf; it must be from 1 to 3600"),
        ("[log]\nlevel = 'loud'", "{path}: log.level is 'loud'; it must be one of debug, info, warning, error"),
        (
            "[hooks]\nmessages = ['ill']",
            "{path}: hooks.messages is ['ill']; it must be some of "
            + ", ".join(("accepted", "delivering", "delivered", "acked", "expired", "dead")),
        ),
        ("[hooks]\non_state = 7", "{path}: hooks.on_state is 7; it must be a text or a list of texts"),
        ("[hooks]\non_state = ['a', 1]", "{path}: hooks.on_state is ['a', 1]; it must be a text or a list of texts"),
        ("[hooks]\nnotify = 'growl'", "{path}: hooks.notify is 'growl'; it must be one of none, notify-send, osc9"),
        ("[log\n", "{path} is not TOML: Expected ']' at the end of a table declaration (at line 1, column 5)"),
    ],
)
def test_a_mistake_is_one_line_with_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "config.toml"
    path.write_text(text)
    with pytest.raises(InvalidValue) as caught:
        load(str(path), {})
    assert caught.value.message == message.format(path=path)
    assert caught.value.hint


@pytest.mark.parametrize(
    ("environ", "overrides", "message"),
    [
        ({"AGENTD_TMUX__WIDTH": "wide"}, [], "$AGENTD_TMUX__WIDTH: tmux.width is 'wide'; it must be a whole number"),
        ({"AGENTD_TMUX__DEPTH": "1"}, [], "$AGENTD_TMUX__DEPTH: no setting `tmux.depth`"),
        ({"AGENTD_NONE__X": "1"}, [], "$AGENTD_NONE__X: no section `none` in the configuration"),
        (
            {"AGENTD_COURIER__LEASE_S": "nan"},
            [],
            "$AGENTD_COURIER__LEASE_S: courier.lease_s is 'nan'; it must be a number",
        ),
        ({}, ["tmux.width"], "--set tmux.width: it has no `=`"),
        ({}, ["width=3"], "--set width: no section `width` in the configuration"),
        ({}, ["tmux=3"], "--set tmux: no setting `tmux`"),
        (
            {},
            ["mailbox.journal=perhaps"],
            "--set mailbox.journal: mailbox.journal is 'perhaps'; it must be true or false",
        ),
    ],
)
def test_a_mistake_elsewhere_is_one_line_too(environ: dict[str, str], overrides: list[str], message: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        load(NOWHERE, environ, overrides)
    assert caught.value.message == message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="cannot read"):
        load(str(tmp_path), {})
    (tmp_path / "latin").write_bytes(b"[log]\nlevel = '\xe9'")
    with pytest.raises(InvalidValue, match="is not TOML"):
        load(str(tmp_path / "latin"), {})


def test_the_template_is_a_file_that_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(template())
    assert load(str(path), {}) == Config()


def test_the_templates_values_are_the_defaults(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    lines = [line[1:] if line[:1] == "#" and line[1:2] != " " else line for line in template().splitlines()]
    path.write_text("\n".join(lines))
    loaded = load(str(path), {})
    assert len(loaded.origins) == len(loaded.rows())
    assert {row["key"]: row["value"] for row in loaded.rows()} == {row["key"]: row["default"] for row in loaded.rows()}


@given(st.sampled_from([row["key"] for row in Config().rows()]), st.text())
def test_any_text_is_taken_or_refused_in_one_line(key: str, value: str) -> None:
    config, refusal = loaded_or_refused(f"{key}={value}")
    if config is None:
        assert "\n" not in refusal
        return
    section, _, name = key.partition(".")
    item = next(item for item in fields(getattr(config, section)) if item.name == name)
    assert type(getattr(getattr(config, section), name)) is type(item.default)


def loaded_or_refused(setting: str) -> tuple[Config | None, str]:
    try:
        return load(NOWHERE, {}, [setting]), ""
    except InvalidValue as error:
        return None, error.message


@given(st.dictionaries(st.text(max_size=8), st.integers() | st.text() | st.booleans() | st.floats(), max_size=3))
def test_any_table_is_taken_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, table: dict[str, object]
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text("[tmux]\n" + "".join(f"{toml(key)} = {toml(value)}\n" for key, value in table.items()))
    tomllib.loads(path.read_text())
    if table:
        with pytest.raises(InvalidValue) as caught:
            load(str(path), {})
        assert "\n" not in caught.value.message


def toml(value: object) -> str:
    if isinstance(value, str):
        escaped = "".join(f"\\U{ord(char):08x}" for char in value)
        return f'"{escaped}"'
    return str(value).lower()


def test_a_command_is_a_line_for_the_shell_or_a_list_of_words(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(
        "[hooks]\non_state = 'cat | wc'\non_message = ['my notify', '-x']\nstates = ['idle']\nmessages = 'dead,acked'"
    )
    hooks = load(str(path), {}, []).hooks
    assert hooks.on_state == ("/bin/sh", "-c", "cat | wc")
    assert hooks.on_message == ("my notify", "-x")
    assert (hooks.states, hooks.messages) == (("idle",), ("dead", "acked"))
    assert load(str(path), {}, ["hooks.on_state= ", "hooks.states="]).hooks.on_state == ()


def test_the_hooks_of_the_guide(tmp_path: Path) -> None:
    guide = (Path(__file__).parents[2] / "docs" / "notifications.md").read_text()
    (tmp_path / "config.toml").write_text(guide.partition("```toml\n")[2].partition("```")[0])
    hooks = load(str(tmp_path / "config.toml"), {}).hooks
    assert hooks.on_message == ("/usr/local/bin/page-me", "--quiet")
    assert (hooks.at_once, hooks.queue, hooks.timeout_s) == (4, 200, 10.0)
    assert all(f"({number})" in guide for number in (4, 200, 10))

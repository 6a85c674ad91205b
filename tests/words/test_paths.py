"""Paths: where things live, and that they are ours alone (R04, R08, S03)."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from agentd.errors import InvalidValue
from agentd.paths import SOCKET_PATH_MAX_BYTES, Paths, check_socket_path, socket_path
from agentd.private import open_private, private_dir

NOBODY = 65_534


def test_one_directory_holds_everything(tmp_path: Path) -> None:
    paths = Paths.find({"AGENTD_DIR": str(tmp_path), "XDG_STATE_HOME": "/elsewhere"})
    assert paths.one_dir
    places = [
        *(
            paths.socket,
            paths.tmux_socket(0),
            paths.tmux_conf(0),
            paths.config_file,
            paths.profiles_dir,
            paths.mailbox_dir,
        ),
        *(paths.registry_file, paths.agents_dir, paths.log_file, *paths.lock_files),
    ]
    assert all(Path(place).is_relative_to(tmp_path) for place in places)
    assert len(set(places)) == len(places)


def test_a_relative_directory_is_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Paths.find({"AGENTD_DIR": "here"}).socket == str(tmp_path / "here" / "agentd.sock")


def test_the_xdg_directories() -> None:
    environ = {"HOME": "/h", "XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c", "XDG_RUNTIME_DIR": "/r"}
    paths = Paths.find(environ)
    assert (paths.state_dir, paths.config_dir, paths.runtime_dir) == ("/s/agentd", "/c/agentd", "/r/agentd")
    assert not paths.one_dir


def test_their_defaults_without_a_runtime_directory() -> None:
    paths = Paths.find({"HOME": "/h"})
    assert (paths.state_dir, paths.config_dir) == ("/h/.local/state/agentd", "/h/.config/agentd")
    assert paths.runtime_dir == f"/tmp/agentd-{os.getuid()}"


@pytest.mark.parametrize("environ", [{"HOME": "/h", "XDG_STATE_HOME": "", "AGENTD_DIR": "", "XDG_RUNTIME_DIR": ""}])
def test_an_empty_variable_is_as_good_as_none(environ: dict[str, str]) -> None:
    assert Paths.find(environ).state_dir == "/h/.local/state/agentd"


@pytest.mark.parametrize("name", ["XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"])
def test_a_relative_xdg_directory_is_ignored(name: str) -> None:
    """The XDG specification: all paths must be absolute, others are to be ignored."""
    assert vars_of(Paths.find({"HOME": "/h", name: "relative"})) == vars_of(Paths.find({"HOME": "/h"}))


def vars_of(paths: Paths) -> list[str]:
    return [paths.state_dir, paths.runtime_dir, paths.config_dir]


def test_without_a_home_the_users_own_is_asked_for() -> None:
    assert Path(Paths.find({}).state_dir).is_absolute()


def test_where_a_client_finds_the_daemon() -> None:
    assert socket_path({"AGENTD_SOCKET": "/x/s", "AGENTD_DIR": "/d"}) == "/x/s"
    assert socket_path({"AGENTD_DIR": "/d"}) == "/d/agentd.sock"


def test_a_socket_path_the_system_cannot_bind_is_refused() -> None:
    """R08."""
    longest = "/" + "x" * (SOCKET_PATH_MAX_BYTES - 1)
    assert check_socket_path(longest) == longest
    for path in (longest + "x", "/" + "é" * (SOCKET_PATH_MAX_BYTES // 2 + 1)):
        with pytest.raises(InvalidValue, match=f"the system allows {SOCKET_PATH_MAX_BYTES}") as caught:
            check_socket_path(path)
        assert "AGENTD_DIR" in (caught.value.hint or "")


def test_a_private_directory_is_made_and_made_again(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    assert private_dir(str(path)) == str(path)
    assert private_dir(str(path)) == str(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o700


def symlink(path: Path) -> None:
    (path.parent / "target").mkdir(mode=0o700)
    path.symlink_to(path.parent / "target")


def dangling(path: Path) -> None:
    path.symlink_to(path.parent / "nothing")


def another_owner(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)


def mode_0755(path: Path) -> None:
    path.mkdir()
    path.chmod(0o755)


def file_instead(path: Path) -> None:
    path.write_text("")


def open_parent(path: Path) -> None:
    path.mkdir(mode=0o700)
    path.parent.chmod(0o777)


@pytest.mark.parametrize(
    ("prepare", "problem"),
    [
        (symlink, "is not a directory (a symlink is not accepted)"),
        (dangling, "is not a directory (a symlink is not accepted)"),
        (mode_0755, "has mode 0755, others may enter; it must be 0700"),
        (file_instead, "is not a directory (a symlink is not accepted)"),
        (open_parent, "lies in a directory that everybody may write to and that has no sticky bit"),
        pytest.param(
            another_owner,
            f"belongs to uid {NOBODY}, not to you",
            marks=pytest.mark.skipif(os.getuid() != 0, reason="only root can give a directory away"),
        ),
    ],
)
def test_a_directory_somebody_prepared_is_refused(tmp_path: Path, prepare: object, problem: str) -> None:
    """R04."""
    path = tmp_path / "runtime"
    prepare(path)  # type: ignore[operator]
    before = os.lstat(path)
    with pytest.raises(InvalidValue) as caught:
        private_dir(str(path))
    assert problem in caught.value.message
    assert str(path) in caught.value.message
    assert os.lstat(path).st_mode == before.st_mode


def test_a_sticky_parent_is_fine(tmp_path: Path) -> None:
    tmp_path.chmod(0o1777)
    assert private_dir(str(tmp_path / "runtime"))


def test_a_private_file_follows_no_symlink(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(InvalidValue, match="it is a symlink; it was left alone"):
        open_private(str(tmp_path / "link"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    assert victim.read_text() == "precious"


def test_nothing_we_make_is_for_others_whatever_the_umask(tmp_path: Path) -> None:
    """S03."""
    program = (
        "import os, sys; os.umask(0); from agentd.private import open_private, private_dir;"
        "d = private_dir(sys.argv[1] + '/a/b'); os.close(open_private(d + '/f', os.O_WRONLY | os.O_CREAT))"
    )
    repository = Path(__file__).parents[2]
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], cwd=repository, check=True)
    made = [tmp_path / "a", tmp_path / "a" / "b", tmp_path / "a" / "b" / "f"]
    assert [oct(stat.S_IMODE(path.stat().st_mode)) for path in made] == ["0o700", "0o700", "0o600"]

"""F16: whatever answers to the name of tmux, one sentence says what is wrong with it, or it works."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from servers import Place, shim

from agentd.errors import AgentdError, VersionMismatch
from agentd.tmux.binary import check_version
from agentd.tmux.failures import TmuxUnavailable

pytestmark = pytest.mark.anyio


def saying(place: Place, says: str) -> str:
    """Put a tmux somewhere that says so about itself."""
    return shim(place, f'[ "$1" = -V ] && {{ {says}; exit; }}')


async def opened(place: Place, binary: str) -> str:
    async with place.open(binary=binary) as (tmux, _):
        await tmux.sessions()
        return tmux.version


@pytest.mark.parametrize("version", ["3.2a", "3.3a", "next-3.8", "master", "openbsd-7.8"])
async def test_f16_a_tmux_that_can_do_is_used(place: Place, version: str) -> None:
    assert await opened(place, saying(place, f"echo tmux {version}"))


@pytest.mark.parametrize(
    ("says", "sentence"),
    [
        ("echo tmux 1.8", "this is tmux 1.8 and agentd needs 3.2 or later"),
        ("echo tmux 3.1c", "this is tmux 3.1c and agentd needs 3.2 or later"),
        ("echo tmux next-3.1", "this is tmux next-3.1 and agentd needs 3.2 or later"),
        ("echo screen 4.0", "says 'screen 4.0': that is no tmux"),
        ("printf '\\033[31m\\377\\376\\n'", "that is no tmux"),
        ("true", "says '': that is no tmux"),
        ("kill -9 $$", "says '': that is no tmux"),
    ],
)
async def test_f16_what_is_no_tmux_or_too_old_is_refused_in_one_sentence(
    place: Place, says: str, sentence: str
) -> None:
    with pytest.raises(VersionMismatch) as caught:
        await opened(place, saying(place, says))
    assert sentence in caught.value.message
    assert caught.value.hint
    assert not Path(place.socket).exists(), "nothing was started"


async def test_f16_what_cannot_be_run_is_refused_in_one_sentence(place: Place) -> None:
    with pytest.raises(TmuxUnavailable, match=r"no program `.*/none` was found") as caught:
        await opened(place, str(place.directory / "none"))
    assert "install tmux" in (caught.value.hint or "")
    broken = place.directory / "broken"
    broken.write_text("#!/no/such/interpreter\n")
    broken.chmod(0o700)
    with pytest.raises(TmuxUnavailable, match="-V` cannot be run: No such file"):
        await opened(place, str(broken))


async def test_f16_a_tmux_that_was_removed_under_a_running_server(place: Place) -> None:
    """Connections that are open go on; what needs a new process says so."""
    binary = Path(saying(place, "echo tmux 3.3a"))
    async with place.open(binary=str(binary)) as (tmux, _):
        binary.unlink()
        assert await tmux.sessions() == []
        tmux.use_control_mode(on=False)
        with pytest.raises(TmuxUnavailable, match="cannot run"):
            await tmux.sessions()
        tmux.use_control_mode(on=True)
        assert await tmux.sessions() == []
        shutil.copy(str(shutil.which("tmux")), binary)  # so that the server can be ended


@pytest.mark.parametrize("version", ["3.2", "3.7c", "10.0", "master", "", "openbsd-1.0", "x" * 1000])
def test_versions_that_are_not_known_to_be_old_pass(version: str) -> None:
    check_version(version)


@pytest.mark.parametrize("version", ["0.1", "1.8", "2.9a", "3.0", "3.1c"])
def test_old_versions_do_not(version: str) -> None:
    with pytest.raises(AgentdError):
        check_version(version)

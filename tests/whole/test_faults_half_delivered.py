"""The daemon dies between the paste and Enter: the next one takes its own text away, and only its own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from faults import back_in_s
from instance import Instance, instance, wait_until

PROFILES = Path(__file__).parents[2] / "agentd/agents/profiles"
ENTERED_LATE_MS = 8000  # a scene is pasted into several composers and killed before the first Enter
ENTERED_MS = 800
LINES = {"demo": 3, "shell": 3, "sh": 1}  # sent at once; a line reader is given one


@dataclass
class Pasted:
    """An agent in whose composer a text of ours stands."""

    whole: Instance
    name: str
    profile: str
    pane: str
    id: str
    ran: Path  # what running the text makes
    last: str = ""  # its last line when the daemon was killed

    @property
    def screen(self) -> str:
        return self.whole.tmux("capture-pane", "-p", "-t", self.pane).rstrip()

    @property
    def last_line(self) -> str:
        return self.screen.rpartition("\n")[2].rstrip()

    @property
    def state(self) -> str:
        with self.whole.client() as client:
            return str(client.call("messages.get", id=self.id)["state"])

    def type(self, text: str) -> None:
        """Type as a person does."""
        self.whole.tmux("send-keys", "-t", self.pane, "-l", text)
        wait_until(lambda: self.screen.endswith(text), "the person's words to show")

    def draft(self) -> None:
        """Wait until the daemon sees a person's draft."""
        with self.whole.client() as client:
            wait_until(lambda: client.call("agents.explain", target=self.name)["draft"], "the draft to be seen")

    def clear(self) -> None:
        """Empty the line as a person does; then the message comes."""
        with self.whole.client() as client:
            client.call("agents.keys", target=self.name, keys=["C-c"])
        self.delivered()

    def delivered(self) -> None:
        """Wait until the message was delivered, and check that it ran once."""
        wait_until(lambda: self.state in ("delivered", "acked"), "the message to be delivered")
        wait_until(self.ran.exists, "it to be run")
        assert len(self.ran.read_text().splitlines()) == 1


def slow_to_enter(whole: Instance, delay_ms: int) -> None:
    """Give the instance profiles that wait between paste and Enter, long enough to be killed in."""
    directory = whole.directory / "profiles"
    directory.mkdir(exist_ok=True, mode=0o700)
    for profile in LINES:
        text = (PROFILES / f"{profile}.toml").read_text()
        (directory / f"{profile}.toml").write_text(text.replace("[input]", f"[input]\nenter_delay_ms = {delay_ms}"))


def up(whole: Instance, delay_ms: int) -> None:
    slow_to_enter(whole, delay_ms)
    whole.up("courier.confirm_s=1", "courier.backoff_s=0.1")


def pasted(whole: Instance, *wanted: str) -> dict[str, Pasted]:
    """Have texts stand in composers of agents named after a scene and a profile."""
    scene = {name: begun(whole, name) for name in wanted}
    with whole.client() as client:
        for one in scene.values():
            body = "\n".join([f"echo ran >> {one.ran}", *[f": line {n}" for n in range(LINES[one.profile] - 1)]])
            one.id = client.send(one.name, body).id
            one.last = "[pasted" if one.profile == "demo" else body.rpartition("\n")[2]
    for one in scene.values():
        wait_until(lambda one=one: one.last in one.screen, "the paste to show")
    return scene


def begun(whole: Instance, name: str) -> Pasted:
    profile, ran = name.rpartition("-")[2], whole.directory / f"{name}.ran"
    agent = whole.spawn(profile, name=name, env={"AGENTD_DEMO_LOG": str(ran)})
    return Pasted(whole, name, profile, agent["pane"], "", ran)


@pytest.fixture(scope="module")
def after() -> Iterator[dict[str, Pasted]]:
    """Give what a daemon that was killed before Enter left, once the next one runs; behind some a person typed."""
    with instance() as whole:
        up(whole, ENTERED_LATE_MS)
        alone, behind = [f"alone-{profile}" for profile in LINES], ["behind-demo", "behind-shell"]
        scene = pasted(whole, *alone, "ours-sh", *behind)
        lasts = {name: one.last_line for name, one in scene.items()}
        whole.kill()
        assert {name: one.last_line for name, one in scene.items()} == lasts
        assert not any(one.ran.exists() for one in scene.values())
        for name in behind:
            scene[name].type(" and I")
        for one in scene.values():
            one.last = one.last_line
        slow_to_enter(whole, ENTERED_MS)
        back_in_s(whole)
        yield scene


def test_what_a_person_types_between_paste_and_enter_is_not_entered(idle_instance: Instance):
    """With a daemon that lives: it sees the words, presses no Enter, and leaves the line to the person."""
    up(idle_instance, 3 * ENTERED_MS)
    scene = pasted(idle_instance, "living-demo", "living-sh").values()
    for one in scene:
        one.type(" and I")
    for one in scene:
        wait_until(lambda one=one: one.state == "accepted", "the attempt to be given up")
        with idle_instance.client() as client:
            assert "not pressed" in client.call("messages.get", id=one.id)["history"][-1]["detail"]
        one.draft()
        assert one.last_line.endswith(" and I")
        assert not one.ran.exists()
        one.clear()


@pytest.mark.parametrize("profile", LINES)
def test_text_that_was_never_entered_is_taken_away_and_typed_again(after: dict[str, Pasted], profile: str):
    one = after[f"alone-{profile}"]
    one.delivered()
    wait_until(lambda: one.last_line in ("$", "demo>"), "an empty composer", 5)
    assert len(one.ran.read_text().splitlines()) == 1


@pytest.mark.parametrize("profile", ["demo", "shell"])
def test_what_a_person_typed_behind_it_is_left_alone(after: dict[str, Pasted], profile: str):
    """It is a person's matter now; when the line is empty again the message comes."""
    one = after[f"behind-{profile}"]
    one.draft()
    others_are_served(one.whole, f"beside-{profile}")
    assert one.last_line == one.last
    assert one.state == "accepted"
    one.clear()


def others_are_served(whole: Instance, name: str) -> None:
    whole.spawn("sh", name=name)
    with whole.client() as client:
        client.call("messages.wait", id=client.send(name, "true").id, until="delivered", timeout_s=20.0)


def test_a_person_may_type_what_was_once_ours(after: dict[str, Pasted]):
    """Text is ours because of when it was typed, not because of how it reads."""
    one = after["ours-sh"]
    one.delivered()
    line = f"echo ran >> {one.ran}"
    one.type(line)
    one.draft()
    others_are_served(one.whole, "beside-ours")
    assert one.last_line == f"$ {line}"

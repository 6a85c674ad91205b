"""What a program shows in its empty composer is no draft: a message is typed there."""

from __future__ import annotations

from instance import Instance, wait_until

PROGRAM = r"""
import sys, termios, tty
tty.setraw(0)
hint = "\x1b[7mT\x1b[0;2mype a message\x1b[0m"
def draw(text):
    sys.stdout.write("\x1b[H\x1b[J" + "-" * 40 + "\r\n> " + text + "\r\n" + "-" * 40)
    sys.stdout.flush()
typed = ""
draw(hint)
while True:
    key = sys.stdin.read(1)
    typed = "" if key == "\r" else typed + key
    draw(typed or hint)
"""
PROFILE = """
command = "{python}"
args = ["-u", "-c", '''%s''']
[boot]
settle_ms = 50
[input]
envelope = "none"
bracketed = false
multiline = false
composer = '^-{40}\\n> ?(?P<text>[^\\n]*)\\n-{40}\\Z'
faint = %s
[[rules]]
state = "idle"
region = "below"
"""


def install(instance: Instance) -> None:
    profiles = instance.directory / "profiles"
    profiles.mkdir(parents=True)
    for name, faint in (("hinted", "true"), ("taken", "false")):
        (profiles / f"{name}.toml").write_text(PROFILE % (PROGRAM, faint))


def test_a_message_is_typed_where_a_hint_stands_and_waits_where_a_draft_does(idle_instance: Instance) -> None:
    install(idle_instance)
    idle_instance.up()
    hinted = idle_instance.spawn("hinted", name="hinted")
    assert not idle_instance.json("explain", "hinted")["draft"]
    assert "Type a message" in idle_instance.screen(hinted)  # so it is a hint that is not taken for a draft
    idle_instance.cli("send", "hinted", "hello", "--wait", "delivered", "--timeout", "20")
    idle_instance.tmux("send-keys", "-t", hinted["pane"], "-l", "mine")
    wait_until(lambda: idle_instance.json("explain", "hinted")["draft"], "the draft to be seen")


def test_where_colours_are_not_looked_at_the_same_hint_is_a_draft(idle_instance: Instance) -> None:
    install(idle_instance)
    idle_instance.up()
    idle_instance.spawn("taken", name="taken")
    assert idle_instance.json("explain", "taken")["draft"]

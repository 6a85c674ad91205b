"""The commands that scripts and agents run all day, for which the whole table is not made."""

from __future__ import annotations

from agentd.cli.grammar import Argument, Command, Option

STATES = ("starting", "idle", "working", "waiting", "stopped", "failed")
YEAR_S = 31_536_000  # the longest that a call waits

DAEMON, AGENTS, MESSAGES = "Daemon", "Agents", "Messages"

TARGET = Argument("TARGET", completes="agents")
MAYBE_TARGET = Argument("TARGET", required=False, completes="targets")
MAYBE_INBOX = Argument("TARGET", required=False, completes="inboxes")
TIMEOUT = Option("--timeout", "SECONDS", "how long to wait (300)", kind="number", high=YEAR_S)
LEASE = Option("--lease", "SECONDS", "how long they are yours (60)", kind="number", low=0.1, high=86_400)
LIMIT = Option("--limit", "N", "the most to show (100)", kind="int", low=1, high=10_000)

_TABLE = (
    Command("status", "daemon:status", "Say how the daemon is.", "agentd status", group=DAEMON),
    Command(
        "ls",
        "agents:ls",
        "List agents.",
        "agentd ls @review --state idle",
        (MAYBE_TARGET,),
        (Option("--state", "STATE", "those in this state", choices=STATES),),
        group=AGENTS,
    ),
    Command(
        "wait",
        "agents:wait",
        "Wait until an agent reaches a state, sends you a message, or exits.",
        "agentd wait lead --for idle --timeout 60",
        (TARGET,),
        (Option("--for", "WHAT", "a state, `reply` or `exit`", choices=(*STATES, "reply", "exit")), TIMEOUT),
        group=AGENTS,
    ),
    Command(
        "hook",
        "hook:hook",
        "Report an event of an agent's program, which runs this itself; reads JSON, always exits 0.",
        """echo '{"hook_event_name": "Stop"}' | agentd hook""",
        (Argument("EVENT", required=False), Argument("PAYLOAD", required=False)),
        group=AGENTS,
    ),
    Command(
        "send",
        "messages:send",
        "Send a message; the receipt means that it is on disk.",
        "agentd send lead 'please review src/' --wait reply --timeout 600",
        (MAYBE_INBOX, Argument("TEXT|-", required=False)),
        (
            Option("--key", "KEY", "idempotency key: the same key again sends nothing again"),
            Option("--priority", "WHICH", "high, normal or low", choices=("high", "normal", "low")),
            Option("--ttl", "SECONDS", "expires when not delivered by then", kind="number", low=0.001, high=YEAR_S),
            Option("--reply-to", "ID", "the message that this one answers", completes="messages"),
            Option(
                "--wait",
                "STATE",
                "accepted, delivered, acked or reply",
                choices=("accepted", "delivered", "acked", "reply"),
            ),
            Option("--timeout", "SECONDS", "how long --wait waits (300)", kind="number", high=YEAR_S),
            Option("--batch", "FILE", "send the messages of a file of JSON Lines, `-` is stdin", completes="files"),
            Option("--batch-size", "N", "messages in one commit (1000)", kind="int", low=1, high=10_000),
        ),
        group=MESSAGES,
    ),
    Command(
        "inbox",
        "messages:inbox",
        "List an inbox; reading your own marks its messages delivered.",
        "agentd inbox lead --all",
        (MAYBE_INBOX,),
        (
            Option("--all", doc="also the messages that are done with"),
            Option("--take", doc="take the next ones for a time; they come again unless you ack or extend them"),
            LEASE,
            LIMIT,
        ),
        group=MESSAGES,
    ),
    Command(
        "msg",
        "messages:msg",
        "Show a message and every state it went through, or the conversation it belongs to.",
        "agentd msg m4k2v7q --thread",
        (Argument("ID", completes="messages"),),
        (Option("--thread", doc="list the whole conversation, oldest first"),),
        group=MESSAGES,
    ),
    Command(
        "ack",
        "messages:ack",
        "Say that messages were dealt with.",
        "agentd ack m4k2v7q",
        (Argument("ID", required=False, many=True, completes="messages"),),
        (Option("--all", doc="all that were delivered to you"),),
        group=MESSAGES,
    ),
)

USUAL: dict[str, Command] = {command.words: command for command in _TABLE}

"""The table of commands. Plain data: the parser, the help and the completions are made from it."""

from __future__ import annotations

from agentd.cli.grammar import Argument, Command, Option

STATES = ("starting", "idle", "working", "waiting", "stopped", "failed")
YEAR_S = 31_536_000  # the longest that a call waits

DAEMON, AGENTS, MESSAGES = "Daemon", "Agents", "Messages"
TEAMS, OBSERVING, OTHER = "Teams and profiles", "Observing", "Other"

TARGET = Argument("TARGET", completes="agents")
TARGETS = Argument("TARGET", many=True, completes="agents")
MAYBE_TARGET = Argument("TARGET", required=False, completes="agents")
IDS = Argument("ID", many=True)
SET = Option("--set", "KEY=VALUE", "a setting for this run of the daemon", kind="pair", repeat=True)
TIMEOUT = Option("--timeout", "SECONDS", "how long to wait (300)", kind="number", high=YEAR_S)
LIMIT = Option("--limit", "N", "the most to show (100)", kind="int", low=1, high=10_000)

NO_WORKTREES = (
    "agentd does not make work trees",
    "make one with `git worktree add` and name it with --cwd",
)

_TABLE = (
    Command(
        "up",
        "daemon:up",
        "Start the daemon.",
        "agentd up --set agents.max=200",
        options=(Option("--foreground", doc="run it here, until it is stopped"), SET),
        group=DAEMON,
    ),
    Command(
        "down",
        "daemon:down",
        "Stop the daemon; agents stay alive unless you say otherwise.",
        "agentd down --agents stop",
        options=(Option("--agents", "WHAT", "what becomes of the agents: keep or stop", choices=("keep", "stop")),),
        group=DAEMON,
    ),
    Command(
        "restart",
        "daemon:restart",
        "Stop the daemon and start it again with the same settings; every agent stays alive.",
        "agentd restart",
        options=(SET,),
        group=DAEMON,
    ),
    Command("status", "daemon:status", "Say how the daemon is.", "agentd status", group=DAEMON),
    Command(
        "spawn",
        "spawning:spawn",
        "Start agents of a profile.",
        "agentd spawn demo -n 2 --team review --role reviewer --wait idle",
        (Argument("PROFILE", completes="profiles"),),
        (
            Option("-n", "N", "how many (1)", kind="int", low=1, high=1000),
            Option("--name", "NAME", "the agent's name, or with -n what their names begin with"),
            Option("--team", "TEAM", "the team they belong to", completes="teams"),
            Option("--role", "ROLE", "their role in the team"),
            Option("--cwd", "DIR", "where they start (here)", completes="directories"),
            Option("--worktree", refusal=NO_WORKTREES),
            Option("--env", "KEY=VALUE", "a variable of their environment", kind="pair", repeat=True),
            Option("--prompt", "TEXT", "their first message"),
            Option("--wait", "STATE", "return when all have reached this state", choices=STATES),
            Option("--timeout", "SECONDS", "how long --wait waits (300)", kind="number", high=YEAR_S),
            Option("--cold", doc="start fresh programs, take none from the pool"),
        ),
        group=AGENTS,
    ),
    Command(
        "ls",
        "agents:ls",
        "List agents.",
        "agentd ls @review --state idle",
        (MAYBE_TARGET,),
        (Option("--state", "STATE", "those in this state", choices=STATES),),
        group=AGENTS,
    ),
    Command("show", "agents:show", "Show everything about one agent.", "agentd show lead", (TARGET,), group=AGENTS),
    Command(
        "explain",
        "agents:explain",
        "Say why an agent is thought to be in its state.",
        "agentd explain lead",
        (TARGET,),
        group=AGENTS,
    ),
    Command(
        "read",
        "screens:read",
        "Print what is on an agent's screen, or what it prints from now on.",
        "agentd read lead --lines 20",
        (TARGET,),
        (
            Option("--lines", "N", "the last N lines of screen and scrollback", kind="int", low=1, high=10_000),
            Option("--follow", doc="go on with what it prints, as it prints it"),
            Option("--raw", doc="with its colours and control sequences, unfiltered"),
        ),
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
        "attach",
        "screens:attach",
        "Hand this terminal to an agent; detaching returns.",
        "agentd attach lead",
        (TARGET,),
        group=AGENTS,
    ),
    Command(
        "keys",
        "agents:keys",
        "Press keys in an agent's terminal.",
        "agentd keys lead Escape C-c Enter",
        (TARGET, Argument("KEY", many=True)),
        group=AGENTS,
    ),
    Command(
        "interrupt",
        "agents:interrupt",
        "Interrupt what an agent is doing.",
        "agentd interrupt lead",
        (TARGET,),
        group=AGENTS,
    ),
    Command(
        "stop",
        "agents:stop",
        "Stop agents; their messages are kept.",
        "agentd stop @review",
        (TARGETS,),
        (Option("--force", doc="kill at once, without asking their programs to end"),),
        group=AGENTS,
    ),
    Command(
        "respawn",
        "agents:respawn",
        "Start an ended agent again, with its name and its inbox.",
        "agentd respawn lead",
        (TARGET,),
        group=AGENTS,
    ),
    Command("whoami", "agents:whoami", "Say who the daemon takes you for.", "agentd whoami", group=AGENTS),
    Command(
        "send",
        "messages:send",
        "Send a message; the receipt means that it is on disk.",
        "agentd send lead 'please review src/' --wait reply --timeout 600",
        (Argument("TARGET", required=False, completes="agents"), Argument("TEXT|-", required=False)),
        (
            Option("--key", "KEY", "idempotency key: the same key again sends nothing again"),
            Option("--priority", "WHICH", "high, normal or low", choices=("high", "normal", "low")),
            Option("--ttl", "SECONDS", "expires when not delivered by then", kind="number", low=0.001, high=YEAR_S),
            Option("--reply-to", "ID", "the message that this one answers"),
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
        (MAYBE_TARGET,),
        (Option("--all", doc="also the messages that are done with"), LIMIT),
        group=MESSAGES,
    ),
    Command(
        "msg",
        "messages:msg",
        "Show a message and every state it went through.",
        "agentd msg m4k2v7q",
        (Argument("ID"),),
        group=MESSAGES,
    ),
    Command(
        "ack",
        "messages:ack",
        "Say that messages were dealt with.",
        "agentd ack m4k2v7q",
        (IDS,),
        group=MESSAGES,
    ),
    Command(
        "nack",
        "messages:nack",
        "Give messages back; they are offered again.",
        "agentd nack m4k2v7q --delay 60",
        (IDS,),
        (
            Option("--delay", "SECONDS", "not before so long (0)", kind="number", high=YEAR_S),
            Option("--detail", "TEXT", "why, for the message's history"),
        ),
        group=MESSAGES,
    ),
    Command(
        "search",
        "search:search",
        'Find messages: all the words, `a OR b` either, "a phrase", begin* as a beginning, -word without it.',
        "agentd search 'deploy* OR \"roll back\" -test' --to @review --since 2d",
        (Argument("QUERY"),),
        (
            Option("--in", "WHERE", "messages or transcripts (messages)", choices=("messages", "transcripts")),
            Option("--from", "TARGET", "those that it sent", completes="agents"),
            Option("--to", "TARGET", "those that it was sent", completes="agents"),
            Option("--since", "WHEN", "not older: 90s, 20m, 2h, 3d, 1w ago, or 2026-01-31, 2026-01-31T14:00"),
            Option("--until", "WHEN", "not younger, likewise"),
            Option("--limit", "N", "the most to show (20)", kind="int", low=1, high=1000),
        ),
        group=MESSAGES,
    ),
    Command(
        "mailbox reindex",
        "search:reindex",
        "Have the index of messages made again, which search looks into; the messages themselves are not touched.",
        "agentd mailbox reindex",
        group=MESSAGES,
    ),
    Command(
        "dead",
        "dead:ls",
        "List dead letters; the same as `agentd dead ls`.",
        "agentd dead",
        (MAYBE_TARGET,),
        (LIMIT,),
        group=MESSAGES,
        hidden=True,
    ),
    Command(
        "dead ls",
        "dead:ls",
        "List dead letters: messages that were given up.",
        "agentd dead ls",
        (MAYBE_TARGET,),
        (LIMIT,),
        group=MESSAGES,
    ),
    Command(
        "dead retry", "dead:retry", "Offer dead letters again.", "agentd dead retry m4k2v7q", (IDS,), group=MESSAGES
    ),
    Command("dead drop", "dead:drop", "Delete dead letters.", "agentd dead drop m4k2v7q", (IDS,), group=MESSAGES),
    Command(
        "mailbox reshard",
        "mailbox:reshard",
        "Spread the messages over another number of files, while no daemon runs; the old files are kept.",
        "agentd mailbox reshard 4",
        (Argument("N", choices=tuple(map(str, range(1, 17)))),),
        group=MESSAGES,
    ),
    Command(
        "team up",
        "teams:up",
        "Bring a team up from its file; what runs stays.",
        "agentd team up examples/team.toml",
        (Argument("FILE", completes="files"),),
        group=TEAMS,
    ),
    Command("team ls", "teams:ls", "List teams.", "agentd team ls", group=TEAMS),
    Command(
        "team show",
        "teams:show",
        "Show one team and its agents.",
        "agentd team show review",
        (Argument("TEAM", completes="teams"),),
        group=TEAMS,
    ),
    Command(
        "team down",
        "teams:down",
        "Stop a team's agents.",
        "agentd team down review",
        (Argument("TEAM", completes="teams"),),
        group=TEAMS,
    ),
    Command("profile ls", "profiles:ls", "List profiles.", "agentd profile ls", group=TEAMS),
    Command(
        "profile show",
        "profiles:show",
        "Show one profile.",
        "agentd profile show claude",
        (Argument("NAME", completes="profiles"),),
        group=TEAMS,
    ),
    Command(
        "profile classify",
        "profiles:classify",
        "Say what a profile's rules make of a saved screen; needs no daemon.",
        "tmux capture-pane -p | agentd profile classify claude -",
        (Argument("NAME", completes="profiles"), Argument("FILE|-", completes="files")),
        (
            Option("--title", "TEXT", "the pane's title, which a screen does not show"),
            Option("--dead", doc="the program has ended"),
        ),
        group=TEAMS,
    ),
    Command(
        "events",
        "events:events",
        "Print what happened, or what happens.",
        "agentd events --follow --types agent.state,message.dead",
        options=(
            Option("--follow", doc="go on with what happens"),
            Option("--types", "TYPES", "only these, with commas between; message.* means all of a noun"),
            Option("--since", "ID", "after this event", kind="int"),
        ),
        group=OBSERVING,
    ),
    Command("metrics", "events:metrics", "Print counters and gauges.", "agentd metrics", group=OBSERVING),
    Command(
        "doctor",
        "doctor:doctor",
        "Check this machine and the installation; needs no daemon.",
        "agentd doctor",
        group=OBSERVING,
    ),
    Command(
        "config show",
        "settings:show",
        "Print each setting and where its value came from; needs no daemon.",
        "agentd config show",
        group=OTHER,
    ),
    Command("config path", "settings:path", "Print where things are.", "agentd config path", group=OTHER),
    Command(
        "config init", "settings:init", "Write a configuration file to start from.", "agentd config init", group=OTHER
    ),
    Command(
        "completion",
        "completion:script",
        "Print a shell's completion script.",
        'eval "$(agentd completion bash)"',
        (Argument("SHELL", choices=("bash", "zsh", "fish")),),
        group=OTHER,
    ),
    Command(
        "call",
        "calls:call",
        "Make any call of the table; `agentd schema` lists them.",
        'agentd call agents.list \'{"state": "idle"}\'',
        (Argument("METHOD", completes="methods"), Argument("JSON|-", required=False)),
        group=OTHER,
    ),
    Command(
        "schema", "calls:schema", "Print every call with the types of its parameters.", "agentd schema", group=OTHER
    ),
    Command(
        "demo",
        "about:demo",
        "Do the main job on an instance of its own, which leaves nothing behind.",
        "agentd demo",
        group=OTHER,
    ),
    Command("version", "about:version", "Print the version.", "agentd version", group=OTHER),
    Command(
        "__complete",
        "completion:complete",
        "Print what may stand next on a command line.",
        "agentd __complete send le",
        (Argument("WORD", required=False, many=True),),
        group=OTHER,
        hidden=True,
    ),
)

COMMANDS: dict[str, Command] = {command.words: command for command in _TABLE}
GROUPS = (DAEMON, AGENTS, MESSAGES, TEAMS, OBSERVING, OTHER)

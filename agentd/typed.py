"""Every call as a method, for type checkers, editors and `help()`.

`./dev typed` makes it from the table of calls. The clients make the calls themselves, from these names:
nothing here is run.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator
    from typing import Any, Literal

METHODS: dict[str, str] = {
    "daemon_status": "daemon.status",
    "daemon_shutdown": "daemon.shutdown",
    "daemon_metrics": "daemon.metrics",
    "config_show": "config.show",
    "notify_test": "notify.test",
    "agents_spawn": "agents.spawn",
    "agents_starting": "agents.starting",
    "agents_list": "agents.list",
    "agents_get": "agents.get",
    "agents_explain": "agents.explain",
    "agents_stop": "agents.stop",
    "agents_respawn": "agents.respawn",
    "agents_rotate_token": "agents.rotate_token",
    "agents_keys": "agents.keys",
    "agents_interrupt": "agents.interrupt",
    "agents_approve": "agents.approve",
    "agents_deny": "agents.deny",
    "agents_capture": "agents.capture",
    "agents_answer": "agents.answer",
    "agents_wait": "agents.wait",
    "agents_whoami": "agents.whoami",
    "agents_report": "agents.report",
    "agents_follow": "agents.follow",
    "agents_transcript": "agents.transcript",
    "agents_own_log": "agents.own_log",
    "messages_send": "messages.send",
    "messages_send_batch": "messages.send_batch",
    "messages_get": "messages.get",
    "messages_thread": "messages.thread",
    "messages_wait": "messages.wait",
    "messages_inbox": "messages.inbox",
    "messages_take": "messages.take",
    "messages_extend": "messages.extend",
    "messages_ack": "messages.ack",
    "messages_done": "messages.done",
    "messages_confirm": "messages.confirm",
    "messages_nack": "messages.nack",
    "messages_dead": "messages.dead",
    "messages_retry": "messages.retry",
    "messages_drop": "messages.drop",
    "messages_search": "messages.search",
    "messages_reindex": "messages.reindex",
    "messages_follow": "messages.follow",
    "loops_list": "loops.list",
    "loops_reset": "loops.reset",
    "mailbox_stats": "mailbox.stats",
    "mailbox_verify": "mailbox.verify",
    "mailbox_export": "mailbox.export",
    "mailbox_import": "mailbox.import",
    "mailbox_compact": "mailbox.compact",
    "sessions_list": "sessions.list",
    "sessions_get": "sessions.get",
    "teams_up": "teams.up",
    "teams_list": "teams.list",
    "teams_get": "teams.get",
    "teams_down": "teams.down",
    "pool_list": "pool.list",
    "pool_set": "pool.set",
    "pool_drain": "pool.drain",
    "projects_get": "projects.get",
    "projects_trust": "projects.trust",
    "projects_untrust": "projects.untrust",
    "projects_up": "projects.up",
    "worktrees_list": "worktrees.list",
    "worktrees_clean": "worktrees.clean",
    "profiles_list": "profiles.list",
    "profiles_get": "profiles.get",
    "schema": "schema",
    "events_list": "events.list",
    "events_follow": "events.follow",
}


class BlockingCalls:
    """The methods of `agentd.Client`."""

    def daemon_status(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say how the daemon is."""
        raise NotImplementedError

    def daemon_shutdown(
        self,
        *,
        agents: Literal["keep", "stop"] = "keep",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Stop the daemon.

        agents: keep them running (default) or stop them first.
        """
        raise NotImplementedError

    def daemon_metrics(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return counters and gauges."""
        raise NotImplementedError

    def config_show(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return each setting, its value and where it came from."""
        raise NotImplementedError

    def notify_test(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Run the commands of the configuration's [hooks] once, with an example."""
        raise NotImplementedError

    def agents_spawn(
        self,
        *,
        profile: str,
        n: int = 1,
        name: str | None = None,
        team: str | None = None,
        role: str | None = None,
        cwd: str | None = None,
        env: dict[str, str] = {},
        prompt: str | None = None,
        key: str | None = None,
        cold: bool = False,
        worktree: bool = False,
        branch: str | None = None,
        trust: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Start agents.

        Start n agents of a profile; the answer comes when tmux has them, readiness follows as events.

        They wait for their turn where the machine has no room for more boots; those it does not come for within the call's
        deadline are not started, and named as failed.
        trust: the programs are told that you trust cwd and what stands in it, instead of asking.
        worktree: each in a fresh git worktree of the repository around cwd, on a branch of its own or on `branch`.
        key: the same caller's same key again starts nothing and answers what it started first, while those are kept.
        """
        raise NotImplementedError

    def agents_starting(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say how far the calls of the caller's own process are that start agents."""
        raise NotImplementedError

    def agents_list(
        self,
        *,
        target: str | None = None,
        state: Literal["starting", "idle", "working", "waiting", "stopped", "failed"] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List agents.

        Which agents; without a target all that are not stopped.
        """
        raise NotImplementedError

    def agents_get(
        self,
        *,
        target: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return everything about one agent.

        One agent.
        """
        raise NotImplementedError

    def agents_explain(
        self,
        *,
        target: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say why an agent is thought to be in its state.

        One agent.
        """
        raise NotImplementedError

    def agents_stop(
        self,
        *,
        targets: list[str],
        force: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Stop agents.

        Which agents to end; force kills at once.
        """
        raise NotImplementedError

    def agents_respawn(
        self,
        *,
        target: str,
        fresh: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Start an ended agent again under its identity.

        One ended agent; fresh: its program begins a session of its own instead of going on with the last one.
        """
        raise NotImplementedError

    def agents_rotate_token(
        self,
        *,
        target: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Give an agent a new token; the old one and its connections end at once.

        One agent.
        """
        raise NotImplementedError

    def agents_keys(
        self,
        *,
        target: str,
        keys: list[str],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Press keys in an agent's terminal.

        Key names as tmux knows them (Enter, Escape, C-c, Up) or single characters.
        """
        raise NotImplementedError

    def agents_interrupt(
        self,
        *,
        target: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Interrupt what an agent is doing.

        One agent.
        """
        raise NotImplementedError

    def agents_approve(
        self,
        *,
        target: str,
        prompt: str | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Let agents do what they ask permission for.

        Whose permission prompts; prompt: its id, as agents.list shows it, of one agent's; another one is left alone.
        """
        raise NotImplementedError

    def agents_deny(
        self,
        *,
        target: str,
        prompt: str | None = None,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Deny agents what they ask permission for.

        The same; the reason is sent to the agent and written down.
        """
        raise NotImplementedError

    def agents_capture(
        self,
        *,
        target: str,
        max_age_ms: float | None = None,
        no_cache: bool = False,
        lines: int | None = None,
        raw: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return what is on an agent's screen.

        The last `lines` of the screen and its scrollback; raw keeps colours.
        """
        raise NotImplementedError

    def agents_answer(
        self,
        *,
        target: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return an agent's last answer, whole, as its program told it.

        One agent.
        """
        raise NotImplementedError

    def agents_wait(
        self,
        *,
        target: str,
        until: Literal["starting", "idle", "working", "waiting", "stopped", "failed", "exit", "reply"],
        timeout_s: float = 300.0,
    ) -> dict[str, Any]:
        """Wait for an agent.

        Wait until the agent reaches a state, exits, or answers.
        """
        raise NotImplementedError

    def agents_whoami(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say who the caller is."""
        raise NotImplementedError

    def agents_report(
        self,
        *,
        event: str = "",
        payload: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Take in what a hook of the caller's program says.

        An event of a hook of the caller's own program, and what the program gave the hook to read, as it came.
        """
        raise NotImplementedError

    def agents_follow(
        self,
        *,
        target: str,
        offset: int | None = None,
        raw: bool = False,
        credit: int = 256,
        timeout_s: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Stream what an agent prints.

        What the agent prints: the screen and what is added to it, or all from an offset on; raw: bytes in base64.
        """
        raise NotImplementedError

    def agents_transcript(
        self,
        *,
        target: str,
        offset: int | None = None,
        since: float | None = None,
        lines: int | None = None,
        raw: bool = False,
        limit_bytes: int = 262144,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return what an agent printed.

        What an agent printed: from an offset or a time on, or its last lines; else all. raw: bytes in base64.
        """
        raise NotImplementedError

    def agents_own_log(
        self,
        *,
        target: str,
        offset: int = 0,
        raw: bool = False,
        limit_bytes: int = 262144,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return what an agent's program itself wrote down of its session.

        A part of the file in which the agent's program itself keeps its session; raw: bytes in base64.
        """
        raise NotImplementedError

    def messages_send(
        self,
        *,
        to: str,
        body: str,
        key: str | None = None,
        priority: Literal["high", "normal", "low"] = "normal",
        ttl_s: float | None = None,
        reply_to: str | None = None,
        headers: dict[str, str] = {},
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Send a message; the answer means it is on disk.

        One message to every agent that the target names.
        """
        raise NotImplementedError

    def messages_send_batch(
        self,
        *,
        messages: list[dict[str, Any]],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Send many messages in one durable commit.

        Many messages, one durable commit; each item is checked for itself, a bad one never stops the others.
        """
        raise NotImplementedError

    def messages_get(
        self,
        *,
        id: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return a message and every state it went through.

        One message.
        """
        raise NotImplementedError

    def messages_thread(
        self,
        *,
        id: str,
        limit: int = 1000,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return a conversation, oldest first.

        The conversation that a message belongs to; an agent sees what it sent or received of it.
        """
        raise NotImplementedError

    def messages_wait(
        self,
        *,
        id: str,
        until: Literal["accepted", "delivered", "acked", "reply"],
        timeout_s: float = 300.0,
    ) -> dict[str, Any]:
        """Wait for a message's state or its answer.

        Wait until the message reaches a state, or is answered.
        """
        raise NotImplementedError

    def messages_inbox(
        self,
        *,
        target: str | None = None,
        all: bool = False,
        limit: int = 100,
        wait_s: float = 0.0,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List an inbox.

        The caller's inbox, or (operator) an agent's; reading one's own marks it delivered. all: ended ones too.

        wait_s: when nothing new is in one's own, so long for a message to come.
        """
        raise NotImplementedError

    def messages_take(
        self,
        *,
        limit: int = 10,
        lease_s: float = 60.0,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Take the next messages, for a time.

        The next messages of the caller's own inbox; each is offered again after lease_s unless acked or extended.
        """
        raise NotImplementedError

    def messages_extend(
        self,
        *,
        ids: list[str],
        lease_s: float = 60.0,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Hold taken messages longer.

        Taken messages, by id or by the lease that came with them, and how long to hold them from now on.
        """
        raise NotImplementedError

    def messages_ack(
        self,
        *,
        ids: list[str] = [],
        all: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say that messages were dealt with.

        Messages by id or by the lease that came with them; or all that were delivered to the caller.
        """
        raise NotImplementedError

    def messages_done(
        self,
        *,
        ids: list[str] = [],
        result: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Answer messages in hand with a result and acknowledge them.

        Messages the caller has in hand, by id or lease; none: all that were delivered to it.

        result: what each sender is answered with before they are acknowledged; a message that is an answer gets none.
        """
        raise NotImplementedError

    def messages_confirm(
        self,
        *,
        ids: list[str],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say that taken messages reached the caller's program.

        Messages by the lease that came with them.
        """
        raise NotImplementedError

    def messages_nack(
        self,
        *,
        ids: list[str],
        delay_s: float = 0.0,
        detail: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Give messages back.

        Give messages back; they are offered again after the delay.
        """
        raise NotImplementedError

    def messages_dead(
        self,
        *,
        target: str | None = None,
        limit: int = 100,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List dead letters.

        Dead letters of one inbox or of all.
        """
        raise NotImplementedError

    def messages_retry(
        self,
        *,
        ids: list[str],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Offer dead letters again.

        Message ids.
        """
        raise NotImplementedError

    def messages_drop(
        self,
        *,
        ids: list[str],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Delete dead letters.

        Message ids.
        """
        raise NotImplementedError

    def messages_search(
        self,
        *,
        query: str,
        in_: Literal["messages", "transcripts"] = "messages",
        target: str | None = None,
        sender: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 20,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Find messages by their words, best first.

        Words, "phrases", prefixes*, OR and -words; of which inboxes, from whom, and when (unix time).
        """
        raise NotImplementedError

    def messages_reindex(
        self,
        *,
        in_: Literal["messages", "transcripts"] = "messages",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Make the index of messages or of transcripts again from what is stored.

        Which index.
        """
        raise NotImplementedError

    def messages_follow(
        self,
        *,
        target: str | None = None,
        since: int | None = None,
        heartbeat_s: float | None = None,
        credit: int = 256,
        timeout_s: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Stream changes of messages.

        Changes of messages: of one inbox, of one sender's messages, or of all; since, heartbeat_s as events.follow.
        """
        raise NotImplementedError

    def loops_list(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List chains of messages near a limit or over it."""
        raise NotImplementedError

    def loops_reset(
        self,
        *,
        names: list[str] = [],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Let messages that went round in a loop flow again.

        Chains, or agents by any TARGET; none means all.
        """
        raise NotImplementedError

    def mailbox_stats(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Count what each shard of the mailbox holds."""
        raise NotImplementedError

    def mailbox_verify(
        self,
        *,
        shard: int,
        cursor: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Look for damage in a small part of a shard.

        One step; cursor: the one of the answer before, none to begin.
        """
        raise NotImplementedError

    def mailbox_export(
        self,
        *,
        cursor: str = "",
        target: str | None = None,
        states: list[Literal["accepted", "delivering", "delivered", "acked", "expired", "dead"]] = [],
        since: float = 0.0,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return the next messages with all there is about them.

        The next messages, by id; cursor: the one of the answer before. since: accepted at or after it, in seconds.
        """
        raise NotImplementedError

    def mailbox_import(
        self,
        *,
        messages: list[dict[str, Any]],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Bring exported messages back; those that are there stay as they are.

        Messages as an export gave them.
        """
        raise NotImplementedError

    def mailbox_compact(
        self,
        *,
        shard: int,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Rewrite a shard's file without its gaps.

        One shard of the mailbox, from 0.
        """
        raise NotImplementedError

    def sessions_list(
        self,
        *,
        max_age_ms: float | None = None,
        no_cache: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List our tmux sessions.

        Every tmux session of ours.
        """
        raise NotImplementedError

    def sessions_get(
        self,
        *,
        session: str,
        max_age_ms: float | None = None,
        no_cache: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return one tmux session.

        One tmux session of ours, by id or name.
        """
        raise NotImplementedError

    def teams_up(
        self,
        *,
        team: dict[str, Any],
        agents: list[dict[str, Any]],
        cwd: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Bring a team up; what runs stays.

        A team file as data; cwd is the directory that relative paths start from.
        """
        raise NotImplementedError

    def teams_list(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List teams."""
        raise NotImplementedError

    def teams_get(
        self,
        *,
        team: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return one team and its agents.

        One team.
        """
        raise NotImplementedError

    def teams_down(
        self,
        *,
        team: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Stop a team's agents.

        One team.
        """
        raise NotImplementedError

    def pool_list(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List the places in which agents are kept booted."""
        raise NotImplementedError

    def pool_set(
        self,
        *,
        profile: str,
        size: int,
        cwd: str | None = None,
        worktree: bool = False,
        trust: bool = False,
        most: int | None = None,
        recycle: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Keep agents of a profile booted in a place.

        Keep so many booted there; most: as many at times when more are asked for (size by default).

        recycle: programs of agents that are stopped there come back, after they forgot their session.
        """
        raise NotImplementedError

    def pool_drain(
        self,
        *,
        profile: str,
        cwd: str | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """End the booted agents of a profile that are nobody's, and keep none any more.

        End the slots of a profile, and keep none any more; without a directory in all its places.
        """
        raise NotImplementedError

    def projects_get(
        self,
        *,
        cwd: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return a project file, whether it is trusted, and what it does.

        The project file in a directory, or the nearest above it.
        """
        raise NotImplementedError

    def projects_trust(
        self,
        *,
        cwd: str,
        digest: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Trust a project file as it was shown, until it changes.

        The same; digest: the SHA-256 of the content that was shown, which is the one that is trusted.
        """
        raise NotImplementedError

    def projects_untrust(
        self,
        *,
        cwd: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Use nothing of a project file any more.

        The project file in a directory, or the nearest above it.
        """
        raise NotImplementedError

    def projects_up(
        self,
        *,
        cwd: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Set the pools of a trusted project file and bring its team up.

        The project file in a directory, or the nearest above it.
        """
        raise NotImplementedError

    def worktrees_list(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List the git worktrees of agents, with what is in each."""
        raise NotImplementedError

    def worktrees_clean(
        self,
        *,
        targets: list[str] = [],
        force: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Remove the worktrees of ended agents, but no work in them.

        Whose worktrees, of all ended agents without; force gives up what is not committed, never a commit.
        """
        raise NotImplementedError

    def profiles_list(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List profiles."""
        raise NotImplementedError

    def profiles_get(
        self,
        *,
        name: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return one profile.

        One profile.
        """
        raise NotImplementedError

    def schema(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return this table with its types."""
        raise NotImplementedError

    def events_list(
        self,
        *,
        since: int = 0,
        types: list[str] = [],
        targets: list[str] = [],
        limit: int = 1000,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return kept events.

        Kept events after an id (0: all), of these types and about agents that one of the targets names.
        """
        raise NotImplementedError

    def events_follow(
        self,
        *,
        since: int | None = None,
        types: list[str] = [],
        targets: list[str] = [],
        heartbeat_s: float | None = None,
        coalesce: bool = True,
        credit: int = 256,
        timeout_s: float | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Stream events.

        Events as they happen, after those kept since an id (0: all); types may end in .* to mean a noun.

        targets: only what is about agents that one of these names, then or later. heartbeat_s: after so long a silence an
        item of the type `heartbeat` comes. coalesce: who is far behind gets the newest state of each agent alone.
        """
        raise NotImplementedError


class AsyncCalls:
    """The methods of `agentd.AsyncClient`."""

    async def daemon_status(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say how the daemon is."""
        raise NotImplementedError

    async def daemon_shutdown(
        self,
        *,
        agents: Literal["keep", "stop"] = "keep",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Stop the daemon.

        agents: keep them running (default) or stop them first.
        """
        raise NotImplementedError

    async def daemon_metrics(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return counters and gauges."""
        raise NotImplementedError

    async def config_show(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return each setting, its value and where it came from."""
        raise NotImplementedError

    async def notify_test(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Run the commands of the configuration's [hooks] once, with an example."""
        raise NotImplementedError

    async def agents_spawn(
        self,
        *,
        profile: str,
        n: int = 1,
        name: str | None = None,
        team: str | None = None,
        role: str | None = None,
        cwd: str | None = None,
        env: dict[str, str] = {},
        prompt: str | None = None,
        key: str | None = None,
        cold: bool = False,
        worktree: bool = False,
        branch: str | None = None,
        trust: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Start agents.

        Start n agents of a profile; the answer comes when tmux has them, readiness follows as events.

        They wait for their turn where the machine has no room for more boots; those it does not come for within the call's
        deadline are not started, and named as failed.
        trust: the programs are told that you trust cwd and what stands in it, instead of asking.
        worktree: each in a fresh git worktree of the repository around cwd, on a branch of its own or on `branch`.
        key: the same caller's same key again starts nothing and answers what it started first, while those are kept.
        """
        raise NotImplementedError

    async def agents_starting(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say how far the calls of the caller's own process are that start agents."""
        raise NotImplementedError

    async def agents_list(
        self,
        *,
        target: str | None = None,
        state: Literal["starting", "idle", "working", "waiting", "stopped", "failed"] | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List agents.

        Which agents; without a target all that are not stopped.
        """
        raise NotImplementedError

    async def agents_get(
        self,
        *,
        target: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return everything about one agent.

        One agent.
        """
        raise NotImplementedError

    async def agents_explain(
        self,
        *,
        target: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say why an agent is thought to be in its state.

        One agent.
        """
        raise NotImplementedError

    async def agents_stop(
        self,
        *,
        targets: list[str],
        force: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Stop agents.

        Which agents to end; force kills at once.
        """
        raise NotImplementedError

    async def agents_respawn(
        self,
        *,
        target: str,
        fresh: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Start an ended agent again under its identity.

        One ended agent; fresh: its program begins a session of its own instead of going on with the last one.
        """
        raise NotImplementedError

    async def agents_rotate_token(
        self,
        *,
        target: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Give an agent a new token; the old one and its connections end at once.

        One agent.
        """
        raise NotImplementedError

    async def agents_keys(
        self,
        *,
        target: str,
        keys: list[str],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Press keys in an agent's terminal.

        Key names as tmux knows them (Enter, Escape, C-c, Up) or single characters.
        """
        raise NotImplementedError

    async def agents_interrupt(
        self,
        *,
        target: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Interrupt what an agent is doing.

        One agent.
        """
        raise NotImplementedError

    async def agents_approve(
        self,
        *,
        target: str,
        prompt: str | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Let agents do what they ask permission for.

        Whose permission prompts; prompt: its id, as agents.list shows it, of one agent's; another one is left alone.
        """
        raise NotImplementedError

    async def agents_deny(
        self,
        *,
        target: str,
        prompt: str | None = None,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Deny agents what they ask permission for.

        The same; the reason is sent to the agent and written down.
        """
        raise NotImplementedError

    async def agents_capture(
        self,
        *,
        target: str,
        max_age_ms: float | None = None,
        no_cache: bool = False,
        lines: int | None = None,
        raw: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return what is on an agent's screen.

        The last `lines` of the screen and its scrollback; raw keeps colours.
        """
        raise NotImplementedError

    async def agents_answer(
        self,
        *,
        target: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return an agent's last answer, whole, as its program told it.

        One agent.
        """
        raise NotImplementedError

    async def agents_wait(
        self,
        *,
        target: str,
        until: Literal["starting", "idle", "working", "waiting", "stopped", "failed", "exit", "reply"],
        timeout_s: float = 300.0,
    ) -> dict[str, Any]:
        """Wait for an agent.

        Wait until the agent reaches a state, exits, or answers.
        """
        raise NotImplementedError

    async def agents_whoami(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say who the caller is."""
        raise NotImplementedError

    async def agents_report(
        self,
        *,
        event: str = "",
        payload: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Take in what a hook of the caller's program says.

        An event of a hook of the caller's own program, and what the program gave the hook to read, as it came.
        """
        raise NotImplementedError

    def agents_follow(
        self,
        *,
        target: str,
        offset: int | None = None,
        raw: bool = False,
        credit: int = 256,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Stream what an agent prints.

        What the agent prints: the screen and what is added to it, or all from an offset on; raw: bytes in base64.
        """
        raise NotImplementedError

    async def agents_transcript(
        self,
        *,
        target: str,
        offset: int | None = None,
        since: float | None = None,
        lines: int | None = None,
        raw: bool = False,
        limit_bytes: int = 262144,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return what an agent printed.

        What an agent printed: from an offset or a time on, or its last lines; else all. raw: bytes in base64.
        """
        raise NotImplementedError

    async def agents_own_log(
        self,
        *,
        target: str,
        offset: int = 0,
        raw: bool = False,
        limit_bytes: int = 262144,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return what an agent's program itself wrote down of its session.

        A part of the file in which the agent's program itself keeps its session; raw: bytes in base64.
        """
        raise NotImplementedError

    async def messages_send(
        self,
        *,
        to: str,
        body: str,
        key: str | None = None,
        priority: Literal["high", "normal", "low"] = "normal",
        ttl_s: float | None = None,
        reply_to: str | None = None,
        headers: dict[str, str] = {},
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Send a message; the answer means it is on disk.

        One message to every agent that the target names.
        """
        raise NotImplementedError

    async def messages_send_batch(
        self,
        *,
        messages: list[dict[str, Any]],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Send many messages in one durable commit.

        Many messages, one durable commit; each item is checked for itself, a bad one never stops the others.
        """
        raise NotImplementedError

    async def messages_get(
        self,
        *,
        id: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return a message and every state it went through.

        One message.
        """
        raise NotImplementedError

    async def messages_thread(
        self,
        *,
        id: str,
        limit: int = 1000,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return a conversation, oldest first.

        The conversation that a message belongs to; an agent sees what it sent or received of it.
        """
        raise NotImplementedError

    async def messages_wait(
        self,
        *,
        id: str,
        until: Literal["accepted", "delivered", "acked", "reply"],
        timeout_s: float = 300.0,
    ) -> dict[str, Any]:
        """Wait for a message's state or its answer.

        Wait until the message reaches a state, or is answered.
        """
        raise NotImplementedError

    async def messages_inbox(
        self,
        *,
        target: str | None = None,
        all: bool = False,
        limit: int = 100,
        wait_s: float = 0.0,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List an inbox.

        The caller's inbox, or (operator) an agent's; reading one's own marks it delivered. all: ended ones too.

        wait_s: when nothing new is in one's own, so long for a message to come.
        """
        raise NotImplementedError

    async def messages_take(
        self,
        *,
        limit: int = 10,
        lease_s: float = 60.0,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Take the next messages, for a time.

        The next messages of the caller's own inbox; each is offered again after lease_s unless acked or extended.
        """
        raise NotImplementedError

    async def messages_extend(
        self,
        *,
        ids: list[str],
        lease_s: float = 60.0,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Hold taken messages longer.

        Taken messages, by id or by the lease that came with them, and how long to hold them from now on.
        """
        raise NotImplementedError

    async def messages_ack(
        self,
        *,
        ids: list[str] = [],
        all: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say that messages were dealt with.

        Messages by id or by the lease that came with them; or all that were delivered to the caller.
        """
        raise NotImplementedError

    async def messages_done(
        self,
        *,
        ids: list[str] = [],
        result: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Answer messages in hand with a result and acknowledge them.

        Messages the caller has in hand, by id or lease; none: all that were delivered to it.

        result: what each sender is answered with before they are acknowledged; a message that is an answer gets none.
        """
        raise NotImplementedError

    async def messages_confirm(
        self,
        *,
        ids: list[str],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Say that taken messages reached the caller's program.

        Messages by the lease that came with them.
        """
        raise NotImplementedError

    async def messages_nack(
        self,
        *,
        ids: list[str],
        delay_s: float = 0.0,
        detail: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Give messages back.

        Give messages back; they are offered again after the delay.
        """
        raise NotImplementedError

    async def messages_dead(
        self,
        *,
        target: str | None = None,
        limit: int = 100,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List dead letters.

        Dead letters of one inbox or of all.
        """
        raise NotImplementedError

    async def messages_retry(
        self,
        *,
        ids: list[str],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Offer dead letters again.

        Message ids.
        """
        raise NotImplementedError

    async def messages_drop(
        self,
        *,
        ids: list[str],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Delete dead letters.

        Message ids.
        """
        raise NotImplementedError

    async def messages_search(
        self,
        *,
        query: str,
        in_: Literal["messages", "transcripts"] = "messages",
        target: str | None = None,
        sender: str | None = None,
        since: float | None = None,
        until: float | None = None,
        limit: int = 20,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Find messages by their words, best first.

        Words, "phrases", prefixes*, OR and -words; of which inboxes, from whom, and when (unix time).
        """
        raise NotImplementedError

    async def messages_reindex(
        self,
        *,
        in_: Literal["messages", "transcripts"] = "messages",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Make the index of messages or of transcripts again from what is stored.

        Which index.
        """
        raise NotImplementedError

    def messages_follow(
        self,
        *,
        target: str | None = None,
        since: int | None = None,
        heartbeat_s: float | None = None,
        credit: int = 256,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Stream changes of messages.

        Changes of messages: of one inbox, of one sender's messages, or of all; since, heartbeat_s as events.follow.
        """
        raise NotImplementedError

    async def loops_list(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List chains of messages near a limit or over it."""
        raise NotImplementedError

    async def loops_reset(
        self,
        *,
        names: list[str] = [],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Let messages that went round in a loop flow again.

        Chains, or agents by any TARGET; none means all.
        """
        raise NotImplementedError

    async def mailbox_stats(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Count what each shard of the mailbox holds."""
        raise NotImplementedError

    async def mailbox_verify(
        self,
        *,
        shard: int,
        cursor: str = "",
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Look for damage in a small part of a shard.

        One step; cursor: the one of the answer before, none to begin.
        """
        raise NotImplementedError

    async def mailbox_export(
        self,
        *,
        cursor: str = "",
        target: str | None = None,
        states: list[Literal["accepted", "delivering", "delivered", "acked", "expired", "dead"]] = [],
        since: float = 0.0,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return the next messages with all there is about them.

        The next messages, by id; cursor: the one of the answer before. since: accepted at or after it, in seconds.
        """
        raise NotImplementedError

    async def mailbox_import(
        self,
        *,
        messages: list[dict[str, Any]],
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Bring exported messages back; those that are there stay as they are.

        Messages as an export gave them.
        """
        raise NotImplementedError

    async def mailbox_compact(
        self,
        *,
        shard: int,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Rewrite a shard's file without its gaps.

        One shard of the mailbox, from 0.
        """
        raise NotImplementedError

    async def sessions_list(
        self,
        *,
        max_age_ms: float | None = None,
        no_cache: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List our tmux sessions.

        Every tmux session of ours.
        """
        raise NotImplementedError

    async def sessions_get(
        self,
        *,
        session: str,
        max_age_ms: float | None = None,
        no_cache: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return one tmux session.

        One tmux session of ours, by id or name.
        """
        raise NotImplementedError

    async def teams_up(
        self,
        *,
        team: dict[str, Any],
        agents: list[dict[str, Any]],
        cwd: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Bring a team up; what runs stays.

        A team file as data; cwd is the directory that relative paths start from.
        """
        raise NotImplementedError

    async def teams_list(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List teams."""
        raise NotImplementedError

    async def teams_get(
        self,
        *,
        team: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return one team and its agents.

        One team.
        """
        raise NotImplementedError

    async def teams_down(
        self,
        *,
        team: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Stop a team's agents.

        One team.
        """
        raise NotImplementedError

    async def pool_list(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List the places in which agents are kept booted."""
        raise NotImplementedError

    async def pool_set(
        self,
        *,
        profile: str,
        size: int,
        cwd: str | None = None,
        worktree: bool = False,
        trust: bool = False,
        most: int | None = None,
        recycle: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Keep agents of a profile booted in a place.

        Keep so many booted there; most: as many at times when more are asked for (size by default).

        recycle: programs of agents that are stopped there come back, after they forgot their session.
        """
        raise NotImplementedError

    async def pool_drain(
        self,
        *,
        profile: str,
        cwd: str | None = None,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """End the booted agents of a profile that are nobody's, and keep none any more.

        End the slots of a profile, and keep none any more; without a directory in all its places.
        """
        raise NotImplementedError

    async def projects_get(
        self,
        *,
        cwd: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return a project file, whether it is trusted, and what it does.

        The project file in a directory, or the nearest above it.
        """
        raise NotImplementedError

    async def projects_trust(
        self,
        *,
        cwd: str,
        digest: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Trust a project file as it was shown, until it changes.

        The same; digest: the SHA-256 of the content that was shown, which is the one that is trusted.
        """
        raise NotImplementedError

    async def projects_untrust(
        self,
        *,
        cwd: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Use nothing of a project file any more.

        The project file in a directory, or the nearest above it.
        """
        raise NotImplementedError

    async def projects_up(
        self,
        *,
        cwd: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Set the pools of a trusted project file and bring its team up.

        The project file in a directory, or the nearest above it.
        """
        raise NotImplementedError

    async def worktrees_list(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List the git worktrees of agents, with what is in each."""
        raise NotImplementedError

    async def worktrees_clean(
        self,
        *,
        targets: list[str] = [],
        force: bool = False,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Remove the worktrees of ended agents, but no work in them.

        Whose worktrees, of all ended agents without; force gives up what is not committed, never a commit.
        """
        raise NotImplementedError

    async def profiles_list(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """List profiles."""
        raise NotImplementedError

    async def profiles_get(
        self,
        *,
        name: str,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return one profile.

        One profile.
        """
        raise NotImplementedError

    async def schema(
        self,
        *,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return this table with its types."""
        raise NotImplementedError

    async def events_list(
        self,
        *,
        since: int = 0,
        types: list[str] = [],
        targets: list[str] = [],
        limit: int = 1000,
        timeout_s: float | None = None,
    ) -> dict[str, Any]:
        """Return kept events.

        Kept events after an id (0: all), of these types and about agents that one of the targets names.
        """
        raise NotImplementedError

    def events_follow(
        self,
        *,
        since: int | None = None,
        types: list[str] = [],
        targets: list[str] = [],
        heartbeat_s: float | None = None,
        coalesce: bool = True,
        credit: int = 256,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Stream events.

        Events as they happen, after those kept since an id (0: all); types may end in .* to mean a noun.

        targets: only what is about agents that one of these names, then or later. heartbeat_s: after so long a silence an
        item of the type `heartbeat` comes. coalesce: who is far behind gets the newest state of each agent alone.
        """
        raise NotImplementedError

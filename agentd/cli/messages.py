"""Commands about messages."""

from __future__ import annotations

import sys

from agentd.cli.output import cell, complain, duration, emit, facts, moment, note, say, table
from agentd.cli.session import ask, ask_once, connection, given, report_failed
from agentd.errors import EXIT_OK, EXIT_PARTIAL, AgentdError, InvalidValue, OverLimit, UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from agentd.cli.grammar import Values
    from agentd.client import Client

MAX_BODY_BYTES = 1_000_000
WAIT_S = 300.0
_BODY_COLUMNS = 60
_ONE_MESSAGE = ("key", "priority", "ttl", "reply_to", "wait", "timeout")


def send(values: Values) -> int:
    """Send one message, or a file of them."""
    if values["batch"]:
        _only_batch(values)
        from agentd.cli.batch import send_file

        return send_file(values["batch"], values["batch_size"] or 1000)
    if values["batch_size"]:
        raise UsageError(
            "--batch-size goes with --batch", hint="for example: agentd send --batch FILE --batch-size 100"
        )
    if not values["target"]:
        raise UsageError("`agentd send` needs TARGET", hint="for example: agentd send lead 'hello'")
    params = given(
        {
            "to": values["target"],
            "body": _body(values["text|-"]),
            **{name: values[name] for name in ("key", "priority", "reply_to")},
            "ttl_s": values["ttl"],
        }
    )
    if values["wait"] in (None, "accepted"):
        receipt = ask_once("messages.send", params)
        _print_receipt(values, receipt)
        return EXIT_PARTIAL if receipt.get("failed") else EXIT_OK
    with connection() as client:
        return _wait(client, values, client.call("messages.send", params))


def _only_batch(values: Values) -> None:
    given_too = [f"--{name.replace('_', '-')}" for name in _ONE_MESSAGE if values[name] is not None]
    given_too += [values["target"]] if values["target"] else []
    if given_too:
        raise UsageError(f"--batch does not go with {given_too[0]}", hint="each line of the file says its own")


def _body(text: str | None) -> str:
    if text is not None and text != "-":
        return _text(text.encode(errors="surrogateescape"))
    if text is None and sys.stdin.isatty():
        raise UsageError("`agentd send` needs TEXT", hint="give the text, or - to read it from stdin")
    data = sys.stdin.buffer.read(MAX_BODY_BYTES + 1)
    if len(data) > MAX_BODY_BYTES:
        raise OverLimit(f"the text is over {MAX_BODY_BYTES} bytes long", hint="write it to a file and send its path")
    if not data.strip():
        raise UsageError("stdin gave no text", hint="give the text as an argument, or pipe it in")
    return _text(data).removesuffix("\n")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise InvalidValue(f"the text is not UTF-8 (byte {error.start})", hint="convert it; nothing was sent") from None


def _wait(client: Client, values: Values, receipt: dict[str, Any]) -> int:
    """Wait for each recipient's message; the receipt is printed whatever comes of it."""
    import time

    deadline_s = time.monotonic() + (WAIT_S if values["timeout"] is None else values["timeout"])
    for part in receipt.get("receipts") or [receipt]:
        left_s = max(0.0, deadline_s - time.monotonic())
        try:
            _tell_of_the_ended(client, part)
            answer = client.call("messages.wait", {"id": part["id"], "until": values["wait"], "timeout_s": left_s})
        except AgentdError as error:
            return _not_reached(values, receipt, error)
        part["state"] = answer["message"]["state"]
        if "reply" in answer:
            part["reply"] = answer["reply"]
    _print_receipt(values, receipt)
    return EXIT_OK


def _tell_of_the_ended(client: Client, part: dict[str, Any]) -> None:
    """Say at once what is waited for when nothing will happen by itself."""
    if part["to"] == "operator":
        return
    try:
        agent = client.call("agents.get", {"target": part["to"]})
    except AgentdError:  # a help only; the wait itself says what is wrong
        return
    if agent["state"] in ("stopped", "failed"):
        name = agent["name"]
        note(f"agentd: {name} is {agent['state']}; waiting until it is started again: agentd respawn {name}")


def _not_reached(values: Values, receipt: dict[str, Any], error: AgentdError) -> int:
    if values["json"]:
        emit({**receipt, "error": error.as_json()})
    else:
        _print_receipt(values, receipt)
    complain(error)
    return error.exit_code


def _print_receipt(values: Values, receipt: dict[str, Any]) -> None:
    if values["json"]:
        emit(receipt)
        return
    for part in receipt.get("receipts") or [receipt]:
        again = ", the same key was sent before" if part.get("duplicate") else ""
        say(f"{part['id']} to {part['to']}: {part['state']}{again}")
        if "reply" in part:
            say(part["reply"]["body"])
    for refused in receipt.get("failed", ()):
        note(f"agentd: {refused['to']} was refused: {refused['error']['message']}")


def inbox(values: Values) -> int:
    """List an inbox, or take its next messages."""
    if values["take"]:
        return _take(values)
    if values["lease"] is not None:
        raise UsageError("--lease goes with --take", hint="for example: agentd inbox --take --lease 300")
    params = {"target": values["target"], "all": values["all"] or None, "limit": values["limit"]}
    answer = ask("messages.inbox", params)
    whose = values["target"] or "you"
    print_messages(values, answer, f"no messages for {whose}; answers appear here when agents send them")
    _tell_refused(answer)
    return EXIT_OK


def _take(values: Values) -> int:
    if values["target"] or values["all"]:
        raise UsageError("--take is for your own inbox", hint="for example: agentd inbox --take --limit 1")
    answer = ask("messages.take", {"lease_s": values["lease"], "limit": values["limit"]})
    if values["json"]:
        emit(answer["messages"])
    elif answer["messages"]:
        heads = ("LEASE", "FROM", "TO", "STATE", "AGE", "BODY")
        table(heads, [(message["lease"], *_row(message)[1:]) for message in answer["messages"]])
    else:
        say("no messages to take; those taken before are offered again when their lease ran out")
    _tell_refused(answer)
    return EXIT_OK


def extend(values: Values) -> int:
    """Hold taken messages longer."""
    return change(values, "messages.extend", {"ids": values["id"], "lease_s": values["lease"]}, "held longer")


def _tell_refused(answer: dict[str, Any]) -> None:
    for row in answer.get("refused", ()):
        what = f"{row['count']} sent by {row['from']} were over a limit and refused since this inbox was last read"
        note(f"agentd: {what}; the sender was told")


def print_messages(values: Values, answer: dict[str, Any], empty: str) -> None:
    """Print one line per message."""
    if values["json"]:
        emit(answer["messages"])
    elif answer["messages"]:
        table(("ID", "FROM", "TO", "STATE", "AGE", "BODY"), [_row(message) for message in answer["messages"]])
    else:
        say(empty)


def _row(message: dict[str, Any]) -> Sequence[object]:
    import time

    age = duration(max(0.0, time.time() - message["created_at"]))
    body = cell(message["body"])
    short = body if len(body) <= _BODY_COLUMNS else body[: _BODY_COLUMNS - 1] + "…"
    return (message["id"], message["from"], message["to"], message["state"], age, short)


def msg(values: Values) -> int:
    """Show a message and its history, or the conversation it belongs to."""
    if values["thread"]:
        print_messages(values, ask("messages.thread", {"id": values["id"]}), "")
        return EXIT_OK
    message = ask_once("messages.get", {"id": values["id"]})
    if values["json"]:
        emit(message)
        return EXIT_OK
    facts(
        [
            *((name, message.get(name)) for name in ("id", "from", "to", "state", "attempts", "priority", "key")),
            ("answers", message.get("reply_to")),
            *((name, message.get(name)) for name in ("thread", "trace")),
            ("hops", message.get("hops") or None),
            ("waits for", message.get("waits_for")),
            ("expires", moment(message.get("expires_at"))),
            ("headers", "\n".join(f"{name}: {text}" for name, text in (message.get("headers") or {}).items())),
            ("history", "\n".join(_step(entry) for entry in message["history"])),
        ]
    )
    say(f"\n{message['body']}")
    return EXIT_OK


def _step(entry: dict[str, Any]) -> str:
    return f"{moment(entry['at'])}  {entry['state']:<10}  {cell(entry['detail'])}".rstrip()


def ack(values: Values) -> int:
    """Say that messages were dealt with."""
    if values["all"] == bool(values["id"]):
        raise UsageError("`agentd ack` needs either ID... or --all", hint="for example: agentd ack m4k2v7q")
    return change(values, "messages.ack", {"ids": values["id"], "all": values["all"]}, "acked")


def nack(values: Values) -> int:
    """Give messages back."""
    params = {"ids": values["id"], "delay_s": values["delay"], "detail": values["detail"]}
    return change(values, "messages.nack", params, "given back")


def change(values: Values, method: str, params: dict[str, Any], done: str) -> int:
    """Make a call about several messages and say what became of each."""
    answer = ask(method, params)
    if values["json"]:
        emit(answer)
    else:
        for id_ in answer["done"]:
            say(f"{id_}: {done}")
    return report_failed(answer["failed"], "id")

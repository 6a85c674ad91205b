"""A program for an agent's pane that lives by MCP alone: it waits for messages and does with each what it was told to.

`python mcp_program.py echo`: passes each message on to $OTHER. `lead`: gives $OTHER a task and sends the result to the
operator. `worker`: finishes each task with a result. A refusal is told to the operator, to whom all may always write.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from mcp_client import McpClient, mcp_client

OTHER = os.environ.get("OTHER", "")


def echo(client: McpClient, message: dict[str, Any]) -> None:
    sent = client.ask(
        "tools/call", name="send_message", arguments={"to": OTHER, "body": "and on", "reply_to": message["id"]}
    )
    result = sent["result"]
    if result["isError"]:
        client.use("send_message", to="operator", body=result["structuredContent"]["error"]["code"])
    client.use("ack", ids=[message["id"]])


def lead(client: McpClient, message: dict[str, Any]) -> None:
    task = client.use("send_message", to=OTHER, body=f"please: {message['body']}")
    answer = client.use("wait", id=task["id"])
    client.use("task_done", ids=[message["id"]], result=f"{OTHER} says: {answer['reply']['body']}")


def worker(client: McpClient, message: dict[str, Any]) -> None:
    client.use("task_done", ids=[message["id"]], result=message["body"].upper())


def main() -> None:
    react = {"echo": echo, "lead": lead, "worker": worker}[sys.argv[1]]
    with mcp_client(dict(os.environ)) as client:
        print("ready", flush=True)
        while True:
            for message in client.use("inbox", wait_s=20)["messages"]:
                react(client, message)


if __name__ == "__main__":
    main()

"""Spawn a few scripted agents, ask each a question in one batch, and print the answers.

Run it with: python examples/ask_everyone.py
"""

from __future__ import annotations

from agentd import AgentdError, connect


def main() -> None:
    """Ask and print."""
    with connect() as agentd:
        spawned = agentd.call("agents.spawn", {"profile": "demo", "n": 3, "team": "quiz"})["agents"]
        names = [agent["name"] for agent in spawned]
        receipts = agentd.send_batch([{"to": name, "body": f"What is your name, {name}?"} for name in names])
        for receipt in receipts:
            if isinstance(receipt, AgentdError):
                print(f"refused: {receipt}")
                continue
            answer = agentd.call("messages.wait", {"id": receipt.id, "until": "reply", "timeout_s": 30.0})["reply"]
            print(f"{answer['from']}: {answer['body']}")
        agentd.call("agents.stop", {"targets": names})


if __name__ == "__main__":
    main()

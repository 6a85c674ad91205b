"""python tests/mailbox/make_golden.py: write golden/v<version>, once for each released version."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from boxes import ALL, Clock, draft, open_box, put_ids, take

from agentd.mailbox.layout import VERSION
from agentd.records import Priority


async def main() -> None:
    place = Path(__file__).parent / "golden" / f"v{VERSION}"
    place.parent.mkdir(exist_ok=True)
    clock = Clock()
    async with open_box(place, clock, shards=2) as box:
        [keyed] = await put_ids(box, draft("with a key", to="lead", sender="operator", key="key-1"))
        for agent in ("lead", "worker", "operator"):
            bodies = ["plain", "ünïcödé ☃", "x" * 6000, "high", "expires", "dies"]
            drafts = [draft(body, to=agent, sender=f"from-{n}", headers={"n": str(n)}) for n, body in enumerate(bodies)]
            ids = await put_ids(box, *drafts, draft("first", to=agent, priority=Priority.HIGH, reply_to=keyed))
            await put_ids(box, draft("gone soon", to=agent, sender="t", ttl_s=1.0))
            clock.forward(2)
            taken = {delivery.message.id: delivery for delivery in await take(box, agent)}
            await box.deliver([taken[ids[0]], taken[ids[1]]], "shown")
            await box.ack(ids[:1], agent)
            await box.nack([taken[ids[5]]], 0, "not shown", 1)
            await box.nack([taken[ids[2]]], 3600, "later", 5)
            await box.release([taken[ids[3]]])
        found = [m for agent in ("lead", "worker", "operator") for m in await box.inbox(agent, ALL, 1000)]
        expected = {
            "key-1": keyed,
            "depths": {agent: box.depth(agent) for agent in ("lead", "worker", "operator")},
            "messages": {m.id: [m.to, m.sender, m.body, m.state, m.attempts] for m in found},
        }
    (place / "expected.json").write_text(json.dumps(expected, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    asyncio.run(main())

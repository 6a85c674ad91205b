"""Looking after the mailbox on a whole instance, by its commands."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

import pytest
from instance import Instance, instance


@pytest.fixture
def whole() -> Iterator[Instance]:
    with instance() as one:
        yield one


def send(whole: Instance, count: int) -> list[str]:
    with whole.client() as client:
        rows = client.call(
            "messages.send_batch", {"messages": [{"to": "operator", "body": f"{n}"} for n in range(count)]}
        )
    return [row["id"] for row in rows["results"]]


def test_stats_verify_and_compact(whole: Instance) -> None:
    whole.up()
    ids = send(whole, 50)
    shards = whole.json("mailbox", "stats")["shards"]
    assert sum(row["waiting"] for row in shards) == 50
    assert {row["health"] for row in shards} == {"ok"}
    assert "all" in whole.cli("mailbox", "stats").stdout
    verdict = whole.json("mailbox", "verify")
    assert verdict["ok"]
    assert sum(row["messages"] for row in verdict["shards"]) == 50
    assert "nothing wrong" in whole.cli("mailbox", "verify").stdout
    assert len(whole.json("mailbox", "compact")["shards"]) == 2
    refused = whole.cli("mailbox", "verify", "--offline", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    unindexed = shutil.ignore_patterns("index")  # its files come and go while the daemon runs
    shutil.copytree(whole.directory / "mailbox", whole.directory / "copy", ignore=unindexed)
    assert "nothing wrong" in whole.cli("mailbox", "verify", "--dir", str(whole.directory / "copy")).stdout
    whole.cli("down")
    for path in (whole.directory / "mailbox").glob("s??.db"):
        data = path.read_bytes()
        path.write_bytes(data.replace(b"operator", b"operatoR"))
    damaged = whole.cli("mailbox", "verify", "--offline", "--json", check=False)
    assert damaged.returncode == 1
    assert {id_ for row in json.loads(damaged.stdout)["shards"] for id_ in row["damaged"]} == set(ids)


def test_a_mailbox_is_resharded_while_no_daemon_runs(whole: Instance) -> None:
    whole.up()
    ids = send(whole, 30)
    refused = whole.cli("mailbox", "reshard", "5", check=False)
    assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
    assert "nothing was changed" in refused.stderr
    whole.cli("down")
    done = whole.json("mailbox", "reshard", "5")
    assert (done["before"], done["after"], done["messages"]) == (2, 5, 30)
    assert "5 shards already" in whole.cli("mailbox", "reshard", "5").stdout
    whole.up("mailbox.shards=4")
    assert "agentd mailbox reshard 4" in (whole.directory / "agentd.log").read_text()
    assert len(whole.json("mailbox", "stats")["shards"]) == 5
    assert [row["id"] for row in whole.json("inbox")] == ids


def test_doctor_says_that_the_setting_is_for_a_new_mailbox(whole: Instance) -> None:
    whole.up()
    whole.cli("down")
    checks = json.loads(whole.cli("doctor", "--json", check=False, AGENTD_MAILBOX__SHARDS="4").stdout)["checks"]
    [row] = [row for row in checks if row["check"] == "mailbox"]
    assert (row["result"], row["todo"]) == ("warn", "agentd down, then agentd mailbox reshard 4")


def test_what_is_exported_comes_back_in_another_instance(whole: Instance) -> None:
    whole.up()
    ids = send(whole, 700)
    whole.cli("ack", *ids[:20])
    place = whole.directory / "out.jsonl.gz"
    assert whole.json("mailbox", "export", str(place)) == {"exported": 700, "damaged": 0}
    assert place.stat().st_mode & 0o077 == 0
    assert whole.cli("mailbox", "export", str(place), check=False).returncode == 1
    text = whole.cli("mailbox", "export").stdout
    assert [json.loads(line)["id"] for line in text.splitlines()] == ids
    acked = whole.cli("mailbox", "export", "-", "--state", "acked", "--agent", "operator").stdout
    assert [json.loads(line)["id"] for line in acked.splitlines()] == ids[:20]
    with instance() as other:
        other.up("mailbox.shards=3")
        assert other.json("mailbox", "import", str(place)) == {"added": 700, "known": 0, "refused": 0}
        assert other.cli("mailbox", "export").stdout == text
        bad = other.cli(
            "mailbox", "import", "-", input_=f'{text.splitlines()[0]}\nnot json\n{{"id": 7}}\n', check=False
        )
        assert bad.returncode == 4
        assert "0 messages added, 1 were there already, 2 refused" in bad.stdout
        assert bad.stderr.count("\n") == 2
        assert "line 2:" in bad.stderr
        missing = other.cli("mailbox", "import", "nowhere", check=False)
        assert (missing.returncode, missing.stderr.count("\n")) == (5, 1)

"""What agents printed, on whole instances: all of it, once, for those who may read it, whatever happens."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from faults import form
from instance import Instance, instance, wait_until
from printing import (
    COUNT,
    SAY_THE_END,
    STAY,
    add_printer,
    numbers,
    raw,
    spawn_printer,
    text,
    transcript,
    until_number,
    until_printed,
)

from agentd.errors import AgentGone, Denied, InvalidValue, UnknownTarget
from agentd.transcripts.search import PASSAGE_CHARS, PORTION_BYTES

HOSTILE = [
    b"\x1b]52;c;c2VjcmV0\x07",
    b"\x1b]0;title\x07",
    b"\x1b]8;;http://evil\x1b\\link\x1b]8;;\x1b\\",
    b"\x1b[2J\x1b[H",
    b"\x1bP$qm\x1b\\",
    b"\x1b[6n\x9b31m\xc2\x9b31m\x1bc",
    b"\x00\x05\x07\x0e\x7f\x85",
    "\u202eabc\u2069".encode(),
]


@pytest.fixture(scope="module")
def shared() -> Iterator[Instance]:
    """Give an instance that can print, and whose daemon runs."""
    with instance() as one:
        add_printer(one)
        one.up()
        yield one


@pytest.fixture
def whole(shared: Instance) -> Iterator[Instance]:
    """Give the shared instance without agents."""
    yield shared
    shared.tidy()


def found(whole: Instance, query: str, count: int = 1, **params: Any) -> list[dict[str, Any]]:
    """Return where a query is found, once it is so often."""

    def passages() -> Any:
        with whole.client() as client:
            found = client.call("messages.search", {"query": query, "in": "transcripts", **params})["passages"]
        return found if len(found) >= count else None

    return list(wait_until(passages, "the index"))


def printf(data: bytes) -> str:
    return "printf '" + "".join(f"\\{byte:03o}" for byte in data) + "'"


# -- all of it

AT_ONCE = form(40, 150)


def test_nothing_is_lost_of_what_programs_print_as_they_start(whole: Instance):
    with whole.client() as client:
        env = {"DO": f"printf 'the very first\\n'; {STAY}"}
        agents = client.call("agents.spawn", profile="printer", n=AT_ONCE, cwd="/", env=env)["agents"]
    for agent in agents:
        until_printed(whole, agent["id"], "the very first\n")
        assert text(whole, agent["id"]) == "the very first\n"


def test_bytes_are_kept_as_they_were(whole: Instance):
    data = bytes(byte for byte in range(256) if byte not in b"\r\n") * 3
    spawn_printer(whole, f"stty -opost; {printf(data)}; printf 'the end\n'; {STAY}", "a")
    until_printed(whole, "a", "the end")
    assert raw(whole, "a") == data + b"the end\n"


def test_from_an_offset_a_time_and_the_last_lines(whole: Instance):
    lines = "".join(f"line {number}\n" for number in range(5000))
    spawn_printer(whole, f"seq -f 'line %g' 0 4999; echo half; printf 'no end'; {STAY}", "a")
    until_printed(whole, "a", "no end")
    now = time.time()
    assert text(whole, "a") == f"{lines}half\nno end"
    assert text(whole, "a", limit_bytes=16_384) == f"{lines}half\nno end"
    assert text(whole, "a", lines=3) == "line 4999\nhalf\nno end"
    assert text(whole, "a", lines=5001).startswith("line 1\n")
    assert text(whole, "a", lines=10_000) == f"{lines}half\nno end"
    assert text(whole, "a", since=now - 3600) == f"{lines}half\nno end"
    assert text(whole, "a", since=now) == ""
    [part] = transcript(whole, "a", lines=1)
    assert text(whole, "a", offset=part["next"]) == ""
    assert text(whole, "a", offset=part["next"] - 6) == "no end"
    assert text(whole, "a", offset=10**12) == ""


def test_ended_agents_are_read_until_they_are_dropped(idle_instance: Instance):
    add_printer(idle_instance)
    idle_instance.up("agents.keep_stopped=1")
    one = spawn_printer(idle_instance, f"echo the last words; {STAY}", "one")
    until_printed(idle_instance, "one", "last words")
    with idle_instance.client() as client:
        client.call("agents.stop", targets=["one"])
        assert text(idle_instance, "one") == "the last words\n"
        client.call("agents.respawn", target="one")
        wait_until(lambda: text(idle_instance, "one") == "the last words\n" * 2, "it to print again")
        client.call("agents.stop", targets=["one"])
        idle_instance.cli("restart")
        assert text(idle_instance, "one") == "the last words\n" * 2
        assert "transcript one" in idle_instance.cli("show", "one").stdout
        place = idle_instance.directory / "transcripts" / one["id"]
        assert place.is_dir()
        time.sleep(0.01)
        spawn_printer(idle_instance, STAY, "two")
        client.call("agents.stop", targets=["two"])
        wait_until(lambda: not place.exists(), "the transcript of the dropped agent to be removed")


# -- followers


class Follower:
    """`agentd transcript a --follow` with its output in a file."""

    def __init__(self, whole: Instance, *words: str) -> None:
        self.path = whole.directory / "followed"
        self._file = self.path.open("wb")
        argv = [sys.executable, "-m", "agentd", "transcript", "a", "--follow", *words]
        self.process = subprocess.Popen(argv, env=whole.environ, stdout=self._file, stderr=subprocess.PIPE)

    @property
    def text(self) -> str:
        return self.path.read_text()

    def end(self) -> tuple[int, bytes]:
        """Wait for the end; return the exit code and what was said."""
        _, said = self.process.communicate(timeout=60)
        self._file.close()
        return self.process.returncode, said


@pytest.fixture
def follow(whole: Instance) -> Iterator[type[Follower]]:
    begun: list[Follower] = []

    class Kept(Follower):
        def __init__(self, *words: str) -> None:
            super().__init__(whole, *words)
            begun.append(self)

    yield Kept  # type: ignore[misc]
    for follower in begun:
        follower.process.kill()
        follower.process.wait()


def test_a_follower_sees_each_line_once_through_a_restart(whole: Instance, follow: Any, tmp_path: Path):
    log = tmp_path / "log"
    spawn_printer(whole, COUNT, "a", LOG=str(log))
    until_number(whole, "a", 100)
    follower = follow()
    wait_until(lambda: numbers(follower.text)[-1:] > [300], "the follower to follow")
    whole.cli("restart")
    began = len(log.read_bytes().splitlines())
    wait_until(lambda: numbers(follower.text)[-1:] > [began + 300], "the follower to go on")
    whole.cli("stop", "a", "--force")
    code, said = follower.end()
    assert (code, said) == (0, b"")
    seen = numbers(follower.text)
    assert seen == sorted(set(seen)), "nothing twice, in order"
    before, mark, after = follower.text.partition("[agentd: something may be missing here: the daemon did not run]\n")
    assert mark
    assert numbers(before) == list(range(numbers(before)[-1] + 1))
    whole_again = numbers(after)
    assert whole_again == list(range(whole_again[0], whole_again[-1] + 1))
    assert numbers(text(whole, "a")) == seen


def test_followers_come_and_go_by_offset(whole: Instance, tmp_path: Path):
    spawn_printer(whole, COUNT, "a", LOG=str(tmp_path / "log"))
    with whole.client() as client:
        seen, offset = "", 0
        for _ in range(10):
            for count, part in enumerate(client.stream("agents.follow", target="a", offset=offset)):
                seen, offset = seen + part["text"], part["next"]
                if count == 5:
                    break
        assert len(numbers(seen)) > 100
        assert numbers(seen) == list(range(len(numbers(seen))))


def test_read_follow_begins_with_the_screen_and_misses_nothing(whole: Instance, tmp_path: Path):
    spawn_printer(whole, COUNT, "a", LOG=str(tmp_path / "log"))
    until_number(whole, "a", 200)
    with whole.client() as client:
        stream = client.stream("agents.follow", target="a")
        screen = next(stream)
        added = "".join(next(stream)["text"] for _ in range(10))
        stream.close()
    shown = numbers(screen["text"])
    assert numbers(added)[0] <= shown[-1] + 1
    assert numbers(added) == list(range(numbers(added)[0], numbers(added)[0] + len(numbers(added))))


# -- crashes


@pytest.mark.parametrize("wait_s", form([0.4], [0.0, 0.4, 1.6]))
def test_a_killed_daemon_loses_at_most_the_last_second(whole: Instance, tmp_path: Path, wait_s: float):
    log = tmp_path / "log"
    spawn_printer(whole, COUNT, "a", LOG=str(log))
    until_number(whole, "a", 300)
    time.sleep(wait_s)  # to be killed at another moment of writing
    killed_s = time.time()
    whole.kill()
    whole.up()
    began = len(log.read_bytes().splitlines())
    until_number(whole, "a", began + 200)
    whole.cli("stop", "a", "--force")
    before, mark, after = text(whole, "a").partition(
        "[agentd: something may be missing here: the daemon did not run]\n"
    )
    assert mark
    kept = numbers(before)
    assert kept == list(range(len(kept)))
    printed_s = [float(line.split()[1]) for line in log.read_bytes().splitlines()]
    assert killed_s - printed_s[len(kept)] < 1.0, "of what was printed a second before the kill, all is kept"
    assert numbers(after) == list(range(numbers(after)[0], numbers(after)[-1] + 1))
    [gap] = [gap for part in transcript(whole, "a") for gap in part["gaps"]]
    assert gap["why"] == "away"


def test_files_are_private_and_a_damaged_part_of_one_is_named_and_the_rest_is_read(whole: Instance):
    agent = spawn_printer(whole, f"seq -f 'number %g' 0 60000; {SAY_THE_END}", "a")
    until_printed(whole, "a", "the end")
    assert found(whole, "number", target="a")
    kept = [whole.directory / "transcripts", *(whole.directory / "transcripts").rglob("*")]
    assert len(kept) > 5
    assert [path for path in kept if path.lstat().st_mode & 0o077] == []
    files = sorted((whole.directory / "transcripts" / agent["id"]).iterdir())
    assert files[0].name.endswith(".log.z")
    changed = bytearray(files[0].read_bytes())
    changed[len(changed) // 2] ^= 1
    files[0].write_bytes(changed)
    printed = text(whole, "a")
    before, mark, after = printed.partition(" bytes are missing here: a file of the transcript is damaged]\n")
    assert mark
    assert numbers(before) == []
    assert "the end\n" in after
    assert len(numbers(after)) < 55_000
    [told] = whole.events("transcripts.report")
    assert files[0].name in told["report"]


# -- bounds


def rss_mb(pid: int) -> float:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_flood_is_taken_in_bounded_memory(idle_instance: Instance):
    add_printer(idle_instance)
    idle_instance.up("transcripts.agent_mb=2")
    pid = idle_instance.pid()
    calm = spawn_printer(idle_instance, COUNT, "calm", LOG=str(idle_instance.directory / "log"))
    until_number(idle_instance, "calm", 50)
    before = rss_mb(pid)
    line = "number %.0f 3.14159 this line is one of very many that nobody will ever read in full"
    agent = spawn_printer(idle_instance, f"seq -f '{line}' 0 {FLOOD_LINES}; {SAY_THE_END}", "flood")
    most = before
    place = idle_instance.directory / "transcripts"

    def is_over() -> bool:
        nonlocal most
        most = max(most, rss_mb(pid))
        with idle_instance.client() as client:
            return "the end" in client.call("agents.transcript", target="flood", lines=3)["text"]

    wait_until(is_over, "the flood to be over", 90)
    assert most - before < 120, f"{before:.0f} MB before, {most:.0f} MB at most"
    size = sum(path.stat().st_size for path in (place / agent["id"]).iterdir())
    assert size < 3_000_000
    with idle_instance.client() as client:
        extent = client.call("agents.get", target="flood")["transcript"]
    gaps = [gap for part in transcript(idle_instance, "flood") for gap in part["gaps"]]
    assert extent["end"] > FLOOD_LINES * 85 or {gap["why"] for gap in gaps} & {"flood", "paused"}
    seen = numbers(text(idle_instance, calm["id"]))
    assert seen == list(range(len(seen))), "who prints little misses nothing"


FLOOD_LINES = form(70_000, 570_000)  # 50 MB in the long form


MOUNTED = 'mount -t tmpfs -o size=3m,mode=700 tmpfs "$0" && exec "$@"'


@pytest.fixture
def small_disk(idle_instance: Instance) -> Instance:
    """Give an instance whose transcripts lie on a disk of 3 MB, seen by its daemon alone."""
    add_printer(idle_instance)
    place = idle_instance.directory / "transcripts"
    place.mkdir(mode=0o700)
    mounted = ["unshare", "-m", "sh", "-c", MOUNTED, str(place)]
    if sys.platform != "linux" or subprocess.run([*mounted, "true"], check=False, capture_output=True).returncode:
        pytest.skip("a small file system cannot be mounted here: unshare -m is missing or not allowed")
    sets = ["transcripts.reserve_mb=0", "transcripts.search=false"]
    argv = [sys.executable, "-m", "agentd", "up", *(word for each in sets for word in ("--set", each))]
    done = subprocess.run([*mounted, *argv], env=idle_instance.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return idle_instance


def test_a_full_disk_stops_transcripts_alone_and_is_told_once(small_disk: Instance):
    seen_by_daemon = Path(f"/proc/{small_disk.pid()}/root{small_disk.directory}/transcripts")
    demo = small_disk.spawn("demo", name="demo")
    spawn_printer(small_disk, COUNT, "a", LOG=str(small_disk.directory / "log"))
    until_number(small_disk, "a", 20)
    filler = seen_by_daemon / "filler"
    with pytest.raises(OSError, match="No space"):
        filler.write_bytes(bytes(4_000_000))
    with small_disk.client() as client:

        def events(type_: str) -> list[Any]:
            return client.call("events.list", types=[type_])["events"]

        [stopped] = wait_until(lambda: events("transcripts.stopped"), "the full disk to be told")
        assert stopped["data"]["reason"] == "the disk is full"
        assert small_disk.json("status")["transcripts"]["trouble"] == "the disk is full"
        for number in range(5):
            receipt = client.send("demo", f"all the same {number}")
            client.call("messages.wait", id=receipt.id, until="acked", timeout_s=20.0)
        assert client.call("agents.get", target="demo")["pid"] == demo["pid"]
        filler.unlink()
        wait_until(lambda: events("transcripts.resumed"), "transcripts to be kept again")
        now = len((small_disk.directory / "log").read_bytes().splitlines())
        until_number(small_disk, "a", now + 100)
        assert len(events("transcripts.stopped")) == 1
    printed = text(small_disk, "a")
    assert " bytes are missing here: the disk took no more]\n" in printed
    seen = numbers(printed)
    assert seen == sorted(set(seen))
    assert seen[0] == 0


# -- who reads it, and what reaches their terminal


def test_nothing_that_acts_on_a_terminal_reaches_it(whole: Instance):
    """T19."""
    spawn_printer(whole, f"{printf(b'needle ' + b' needle '.join(HOSTILE))}; printf 'the end\n'; {STAY}", "a")
    until_printed(whole, "a", "the end")
    assert HOSTILE[0] in raw(whole, "a"), "it was printed"
    assert found(whole, "needle")
    for words in (
        ["transcript", "a"],
        ["transcript", "a", "--lines", "5"],
        ["search", "needle", "--in", "transcripts"],
        ["read", "a"],
        ["show", "a"],
        ["ls"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "agentd", *words], env=whole.environ, capture_output=True, check=True
        )
        assert b"needle" in done.stdout or words[0] in ("show", "ls")
        assert not [byte for byte in done.stdout if byte < 0x20 and byte not in b"\n\t"], words
        shown = done.stdout.decode()
        assert not [char for char in shown if 0x7F <= ord(char) < 0xA0 or char in "\u202e\u2069"], words
    done = subprocess.run(
        [sys.executable, "-m", "agentd", "transcript", "a", "--raw"], env=whole.environ, capture_output=True, check=True
    )
    assert HOSTILE[0] in done.stdout


def test_an_agent_reads_and_finds_its_own_at_most(whole: Instance):
    agents = [spawn_printer(whole, f"echo the pin of {name}; {STAY}", name) for name in ("a", "b")]
    for name in ("a", "b"):
        until_printed(whole, name, "pin")
    assert len(found(whole, "pin", 2)) == 2
    assert len(whole.json("search", "pin", "--in", "transcripts", "--to", "b")) == 1
    token = (whole.directory / "agents" / agents[0]["id"] / "token").read_text().strip()
    with whole.client(token=token) as client:
        for params in ({}, {"target": "b"}, {"target": "all"}):
            answer = client.call("messages.search", {"query": "pin", "in": "transcripts", **params})
            assert [row["agent"] for row in answer["passages"]] == ["a"]
        for method in ("agents.transcript", "agents.follow", "agents.own_log"):
            with pytest.raises(Denied):
                client.call(method, target="a") if method != "agents.follow" else list(
                    client.stream(method, target="a")
                )


def test_what_is_found_is_read_by_its_offset(idle_instance: Instance):
    whole = idle_instance
    add_printer(whole)
    whole.up("search.engine=tantivy")
    spawn_printer(whole, f"seq -f 'line %g' 0 5000; {STAY}", "a")
    until_printed(whole, "a", "line 5000\n")
    for engine in ("tantivy", "fts5"):
        if engine == "fts5":
            whole.cli("restart", "--set", "search.engine=fts5")
        [row] = found(whole, '"line 3456"')
        # A passage ends with the portion of the output in which it became long enough.
        assert "line 3456\n" in text(whole, "a", offset=row["offset"])[: PASSAGE_CHARS + PORTION_BYTES]
    whole.cli("mailbox", "reindex", "--in", "transcripts")
    assert found(whole, '"line 3456"'), "made again"


# -- the program's own record


def name_own_logs(whole: Instance, paths: dict[str, str]) -> None:
    """Write into the registry which files programs told of, by their agents' ids, while no daemon runs."""
    whole.cli("down")
    with sqlite3.connect(whole.directory / "registry.db") as db:
        for id_, path in paths.items():
            [data] = db.execute("SELECT data FROM agents WHERE id=?", (id_,)).fetchone()
            db.execute("UPDATE agents SET data=? WHERE id=?", (json.dumps(json.loads(data) | {"log_path": path}), id_))
    db.close()
    whole.up()


def test_the_programs_own_record_is_linked_and_read(whole: Instance):
    agent = spawn_printer(whole, STAY, "a")
    assert "has not told" in whole.cli("transcript", "a", "--own", check=False).stderr
    log = whole.directory / "home" / "session.jsonl"
    line = '{"said": "é\x1b]0;x\x07"}\n'
    log.write_text(line * 50_000)
    name_own_logs(whole, {agent["id"]: str(log)})
    assert re.search(rf"^own log +{log}$", whole.cli("show", "a").stdout, re.MULTILINE)
    assert whole.cli("transcript", "a", "--own").stdout == line.replace("\x1b", "␛").replace("\x07", "␇") * 50_000
    done = subprocess.run(
        [sys.executable, "-m", "agentd", "transcript", "a", "--own", "--raw"], env=whole.environ, capture_output=True
    )
    assert done.stdout == log.read_bytes()


def tricks(directory: Path) -> dict[str, tuple[str, int, str]]:
    """Make what a program may name to trick us; return each with its exit code and a word of what is said."""
    secret = directory / "secret"
    secret.write_text("secret")
    (directory / "symlink").symlink_to(secret)
    os.mkfifo(directory / "fifo")
    (directory / "directory").mkdir()
    kinds = {kind: (str(directory / kind), 7, "") for kind in ("symlink", "fifo", "directory")}
    kinds |= {"device": ("/dev/zero", 7, ""), "gone": (str(directory / "gone"), 5, ""), "relative": ("log", 2, "")}
    if os.getuid() == 0:  # only root can give a file away
        theirs = directory / "theirs"
        theirs.write_text("theirs")
        os.chown(theirs, 65_534, 65_534)
        kinds["theirs"] = (str(theirs), 7, "belongs to uid 65534")
    return kinds


def test_what_a_program_names_to_trick_us_is_refused(whole: Instance, tmp_path: Path):
    kinds = tricks(tmp_path)
    ids = {kind: spawn_printer(whole, STAY, kind)["id"] for kind in kinds}
    name_own_logs(whole, {ids[kind]: path for kind, (path, _, _) in kinds.items()})
    for kind, (_, code, word) in kinds.items():
        done = whole.cli("transcript", kind, "--own", check=False)
        assert (done.returncode, done.stdout) == (code, ""), (kind, done)
        assert done.stderr.count("\n") == 1, kind
        assert word in done.stderr


# -- the guide


def test_what_the_guide_shows_works(idle_instance: Instance, tmp_path: Path):
    whole = idle_instance
    add_printer(whole)
    whole.up()
    guide = (Path(__file__).parents[2] / "docs" / "transcripts.md").read_text()
    shown = [line.strip() for line in guide.splitlines() if line.startswith("    agentd ")]
    assert len(shown) > 6
    with whole.client() as client:
        env = {"DO": f"echo 'a panic'; {STAY}"}
        client.call("agents.spawn", profile="printer", name="lead", team="review", cwd="/", env=env)
        until_printed(whole, "lead", "a panic")
        assert found(whole, "panic")
    for line in sorted(shown, key=lambda line: "--follow" in line):
        if "--follow" in line:
            whole.cli("stop", "lead")
        command = re.split(r"   +", line)[0]  # what follows says what it does
        argv = ["sh", "-c", f'agentd() {{ "{sys.executable}" -m agentd "$@"; }}; {command}']
        done = subprocess.run(argv, env=whole.environ, cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, ""), command
    assert (tmp_path / "lead.bin").read_bytes() == b"a panic\r\n"


# -- bad input


def test_what_is_asked_wrongly_is_said(whole: Instance):
    agent = spawn_printer(whole, f"echo one; {STAY}", "a")
    with whole.client() as client:
        for params, error in (
            ({"target": "nobody"}, UnknownTarget),
            ({"target": "a", "offset": 1, "lines": 1}, InvalidValue),
            ({"target": "a", "since": 1.0, "lines": 1}, InvalidValue),
            ({"target": "a", "offset": -1}, InvalidValue),
            ({"target": "a", "lines": 0}, InvalidValue),
            ({"target": "a", "limit_bytes": 1}, InvalidValue),
        ):
            with pytest.raises(error):
                client.call("agents.transcript", params)
        client.call("agents.stop", targets=["a"])
        with pytest.raises(AgentGone):
            list(client.stream("agents.follow", target="a"))
        assert "".join(part["text"] for part in client.stream("agents.follow", target="a", offset=0)) == "one\n"
    for words in (["--since", "1h", "--lines", "2"], ["--own", "--follow"], ["--own", "--lines", "2"]):
        assert whole.cli("transcript", agent["id"], *words, check=False).returncode == 2


def test_turned_off(idle_instance: Instance):
    add_printer(idle_instance)
    idle_instance.up("transcripts.enabled=false")
    spawn_printer(idle_instance, f"echo one; {STAY}", "a")
    wait_until(lambda: "one" in idle_instance.cli("read", "a").stdout, "it to print")
    for words in (["transcript", "a"], ["read", "a", "--follow"], ["search", "one", "--in", "transcripts"]):
        done = idle_instance.cli(*words, check=False)
        assert done.returncode == 2
        assert "off" in done.stderr
    assert not (idle_instance.directory / "transcripts").exists()

"""Transcripts on disk: written, compressed, read from any position, cut short by crashes, damaged, removed."""

from __future__ import annotations

import os
import random
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keeping import AGENT, files, heard, printed, read_all, store

from agentd.transcripts.folder import read, segments
from agentd.transcripts.reading import Reader, extent, position_at
from agentd.transcripts.segment import HEADER, MOST_POSITIONS, Missing, Printed, Why, pack


def noise(size: int, seed: int = 1) -> bytes:
    """Return bytes that compress to about a half."""
    return random.Random(seed).randbytes(size // 2 + 1).hex().encode()[:size]


def write(place: Path, *portions: bytes, **settings_: float) -> bytes:
    """Write portions, each in a batch of its own; return them joined."""
    keeper = store(place, **settings_)
    for number, portion in enumerate(portions):
        keeper.write({AGENT: heard(portion, at_ns=number + 1)})
        assert not keeper.trouble
    return b"".join(portions)


def three_segments(place: Path) -> bytes:
    return write(place, *(noise(100_000, n) for n in range(16)))


def test_what_is_written_is_read_from_any_position(tmp_path: Path):
    data = three_segments(tmp_path)
    assert [name.partition(".")[2] for name in files(tmp_path)] == ["log.z", "log.z", "log"]
    starts = [segment.start for segment in segments(tmp_path / AGENT)]
    for position in (0, 1, 99_999, *(start + n for start in starts[1:] for n in (-1, 0, 1)), len(data) - 1, len(data)):
        assert printed(tmp_path, position) == data[position:]
        assert printed(tmp_path, position, size=7777) == data[position:]
    assert extent(tmp_path / AGENT)[:2] == (0, len(data))
    assert store(tmp_path).track(AGENT).extent == extent(tmp_path / AGENT)
    assert sum(path.stat().st_size for path in (tmp_path / AGENT).iterdir()) < len(data) * 3 // 4


def test_files_are_private(tmp_path: Path):
    old = os.umask(0)
    try:
        three_segments(tmp_path / "t")
    finally:
        os.umask(old)
    for path in [tmp_path / "t", *(tmp_path / "t").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600)


def test_a_reader_goes_on_while_it_is_written_compressed_and_removed(tmp_path: Path):
    keeper = store(tmp_path)
    reader = Reader(tmp_path / AGENT, 0, print)
    assert reader.next(1000).pieces == []
    got, wanted = b"", b""
    for number in range(40):
        portion = noise(30_000, number)
        keeper.write({AGENT: heard(portion, at_ns=number + 1)})
        wanted += portion
        if number % 3:
            while page := reader.next(50_000).pieces:
                got += b"".join(piece.data for piece in page)
    while page := reader.next(50_000).pieces:
        got += b"".join(piece.data for piece in page)
    assert got == wanted


def test_ended_agents_are_compressed_and_gone_on_with(tmp_path: Path):
    keeper = store(tmp_path)
    keeper.write({AGENT: heard(b"one" * 3000, ended=True)})
    assert files(tmp_path) == ["000000000000000.log.z"]
    keeper.write({AGENT: heard(b"two", ended=True)})
    assert files(tmp_path) == ["000000000000000.log.z", "000000000009000.log"]  # too small to be worth it
    assert printed(tmp_path) == b"one" * 3000 + b"two"
    assert write(tmp_path, b"three") == b"three"  # another process
    assert printed(tmp_path) == b"one" * 3000 + b"twothree"


def test_gaps_stand_where_something_is_missing(tmp_path: Path):
    keeper = store(tmp_path)
    keeper.write({AGENT: heard(b"ab", Why.AWAY, b"cd", at_ns=5, flooded_bytes=77)})
    keeper.write({AGENT: heard(b"e", at_ns=6)})
    gap, flood = Missing(5, Why.AWAY), Missing(5, Why.FLOOD, 77)
    assert read_all(tmp_path) == [Printed(5, b"ab"), gap, Printed(5, b"cd"), flood, Printed(6, b"e")]
    assert read_all(tmp_path, 3) == [Printed(5, b"cd"), flood, Printed(6, b"e")]  # a gap takes one position
    assert read_all(tmp_path, 2, size=1)[0] == gap


def test_by_time(tmp_path: Path):
    write(tmp_path, *(noise(100_000, n) for n in range(16)))  # portion n was printed at n + 1
    for at_ns in range(1, 17):
        assert position_at(tmp_path / AGENT, at_ns) == (at_ns - 1) * 100_000
    assert position_at(tmp_path / AGENT, 0) == 0
    assert position_at(tmp_path / AGENT, 17) == 1_600_000
    assert position_at(tmp_path / "nobody", 1) == 0


# -- crashes


@settings(max_examples=25)
@given(st.integers(0, 20_000))
def test_a_torn_end_is_cut_off_and_gone_on_behind(tmp_path_factory: pytest.TempPathFactory, cut_bytes: int):
    place = tmp_path_factory.mktemp("t")
    data = write(place, *(noise(5000, n) for n in range(3)))
    path = segments(place / AGENT)[-1].path
    os.truncate(path, max(0, path.stat().st_size - cut_bytes))
    kept = printed(place)
    assert kept == data[: len(kept)]
    assert len(data) - len(kept) < cut_bytes + 5000
    write(place, b"more")
    assert printed(place) == kept + b"more"


def test_what_a_crash_left_of_compressing_is_finished(tmp_path: Path):
    data = three_segments(tmp_path)
    full = segments(tmp_path / AGENT)[0].path
    log = full.with_suffix("")
    # Killed before the rename: the log is whole, the other is not.
    whole_log = HEADER + b"".join(map(pack, read(segments(tmp_path / AGENT)[0])[0]))
    compressed = full.read_bytes()
    full.unlink()
    log.write_bytes(whole_log)
    full.with_name(full.name + ".part").write_bytes(compressed[:1000])
    assert printed(tmp_path) == data
    store(tmp_path).track(AGENT)
    assert files(tmp_path)[0].endswith(".log.z")
    assert not [name for name in files(tmp_path) if name.endswith(".part")]
    # Killed behind the rename: both are there.
    log.write_bytes(b"what nobody looks at")
    store(tmp_path).track(AGENT)
    assert not log.exists()
    assert printed(tmp_path) == data


# -- damage


@pytest.mark.parametrize("where", [2, 20, 300, -1])
def test_a_damaged_segment_is_left_out_and_named(tmp_path: Path, where: int):
    data = three_segments(tmp_path)
    second = segments(tmp_path / AGENT)[1]
    third = segments(tmp_path / AGENT)[2].start
    changed = bytearray(second.path.read_bytes())
    changed[where] ^= 1
    second.path.write_bytes(changed)
    told: list[str] = []
    pieces = read_all(tmp_path, report=told.append)
    lost = third - second.start
    assert pieces == [
        Printed(1, data[: second.start]),
        Missing(0, Why.DAMAGED, lost, lost),
        Printed(pieces[2].at_ns, data[third:]),
    ]
    assert second.path.name in told[0]
    assert printed(tmp_path, third) == data[third:]
    write(tmp_path, b"more")
    assert printed(tmp_path, third) == data[third:] + b"more"


def test_damage_in_the_newest_segment_is_set_aside_and_kept(tmp_path: Path):
    data = write(tmp_path, *(noise(5000, n) for n in range(3)))
    path = segments(tmp_path / AGENT)[-1].path
    changed = bytearray(path.read_bytes())
    changed[7000] ^= 1
    path.write_bytes(changed)
    told: list[str] = []
    keeper = store(tmp_path, told.append)
    keeper.write({AGENT: heard(b"more", at_ns=9)})
    assert files(tmp_path)[0] == "000000000000000.bad"
    assert (tmp_path / AGENT / files(tmp_path)[0]).read_bytes() == changed
    assert "is damaged" in told[0]
    assert "000000000000000.bad" in told[0]
    pieces = read_all(tmp_path, report=told.append)
    assert pieces == [Missing(0, Why.DAMAGED, MOST_POSITIONS, MOST_POSITIONS), Printed(9, b"more")]
    assert len(data) < MOST_POSITIONS, "no position is given twice"


@pytest.mark.parametrize("left", ["gone", "empty", "longer"])
def test_a_file_that_somebody_changed_is_left_and_the_next_begun(tmp_path: Path, left: str):
    keeper = store(tmp_path)
    keeper.write({AGENT: heard(b"one")})
    path = segments(tmp_path / AGENT)[0].path
    path.unlink() if left == "gone" else path.write_bytes(b"" if left == "empty" else b"x" * 9000)
    keeper.write({AGENT: heard(b"two", at_ns=2)})
    assert not keeper.trouble
    assert read_all(tmp_path, report=lambda _: None)[-1] == Printed(2, b"two")
    assert printed(tmp_path, 3) == b"two"


def test_a_newer_format_is_left_alone(tmp_path: Path):
    write(tmp_path, b"one")
    path = segments(tmp_path / AGENT)[0].path
    newer = path.read_bytes()[:4] + b"\2" + path.read_bytes()[5:]
    path.write_bytes(newer)
    told: list[str] = []
    store(tmp_path, told.append).write({AGENT: heard(b"two")})
    assert "format 2" in told[0]
    assert path.read_bytes() == newer
    assert printed(tmp_path, MOST_POSITIONS) == b"two"


def test_a_link_in_the_place_of_a_file_is_not_followed(tmp_path: Path):
    target = tmp_path / "target"
    target.write_bytes(b"mine")
    keeper = store(tmp_path / "t")
    keeper.write({AGENT: heard(b"one" * 3000, ended=True)})
    (tmp_path / "t" / AGENT / "000000000009000.log").symlink_to(target)
    keeper.write({AGENT: heard(b"two")})
    assert "symlink" in keeper.trouble
    assert target.read_bytes() == b"mine"
    assert read_all(tmp_path / "t", report=lambda _: None)[0].data == b"one" * 3000


# -- keeping


DAY_NS = 86_400_000_000_000


def test_old_segments_are_removed_and_positions_go_on(tmp_path: Path):
    keeper = store(tmp_path, keep_days=1)
    data = b""
    for number in range(16):
        portion = noise(100_000, number)
        keeper.write({AGENT: heard(portion, at_ns=number * DAY_NS // 8)})
        data += portion
    second, third = (segment.start for segment in segments(tmp_path / AGENT)[1:])
    assert keeper.keep(DAY_NS) == 0
    assert keeper.keep(int(1.8 * DAY_NS)) == 1
    first = read_all(tmp_path)[0]
    assert first == Missing(0, Why.REMOVED, second, second)
    assert printed(tmp_path, second) == data[second:]
    assert keeper.keep(90 * DAY_NS) == 2
    assert extent(tmp_path / AGENT)[:2] == (len(data), len(data))
    assert keeper.keep(99 * DAY_NS) == 0
    assert third < len(data)
    for again in (keeper, store(tmp_path)):
        again.write({AGENT: heard(b"more")})
    assert printed(tmp_path, len(data)) == b"moremore"


def test_positions_go_on_behind_an_ended_agents_that_are_all_removed(tmp_path: Path):
    keeper = store(tmp_path, keep_days=1)
    keeper.write({AGENT: heard(noise(9000), ended=True)})
    assert keeper.keep(9 * DAY_NS) == 1
    store(tmp_path).write({AGENT: heard(b"more")})
    assert printed(tmp_path, 9000) == b"more"


def test_an_agent_keeps_to_its_own_bound(tmp_path: Path):
    keeper = store(tmp_path, agent_mb=1)
    data = b""
    for number in range(50):
        portion = noise(100_000, number)
        keeper.write({AGENT: heard(portion), "2def": heard(b"small")})
        data += portion
        assert keeper.track(AGENT).size_bytes <= 1_600_000
    first = extent(tmp_path / AGENT).first
    assert first > 2_000_000
    assert printed(tmp_path, first) == data[first:]
    assert keeper.track("2def").extent.end == 250


def test_all_together_keep_to_a_bound_and_the_oldest_go_first(tmp_path: Path):
    keeper = store(tmp_path, total_mb=2)
    for number in range(40):
        keeper.write({f"{number % 4}abc": heard(noise(400_000, number), at_ns=number + 1)})
    assert keeper.keep(1) > 0
    assert keeper.size_bytes <= 2_000_000
    again = store(tmp_path, total_mb=2)  # as a new daemon finds them
    assert again.keep(1) == 0
    assert again.size_bytes == keeper.size_bytes
    assert len({extent(tmp_path / f"{n}abc").first for n in range(4)}) <= 2, "each lost about as much"


def test_forgotten_agents_leave_nothing(tmp_path: Path):
    three_segments(tmp_path)
    (tmp_path / AGENT / "000000000000000.log.z.part").write_bytes(b"x")
    keeper = store(tmp_path)
    keeper.write({AGENT: heard(forgotten=True), "2def": heard(forgotten=True)})
    assert list(tmp_path.iterdir()) == []
    keeper.write({AGENT: heard(b"new", forgotten=True)})
    assert printed(tmp_path) == b"new"


# -- a disk that takes no more


def test_below_the_reserve_nothing_is_written_and_the_gap_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    keeper = store(tmp_path)
    keeper.write({AGENT: heard(b"one")})
    poor = store(tmp_path, reserve_mb=100_000_000)
    poor.write({AGENT: heard(b"two"), "2def": heard(b"three")})
    poor.write({AGENT: heard(b"four")})
    assert poor.trouble == "less than 100000000 MB of the disk are free"
    assert printed(tmp_path) == b"one"
    object.__setattr__(poor._config, "reserve_mb", 0)
    poor._looked_s = 0.0  # as a second later
    poor.write({})
    assert poor.trouble == ""
    [_, gap] = read_all(tmp_path)
    assert gap._replace(at_ns=0) == Missing(0, Why.DISK, len(b"twofour"))
    poor.write({AGENT: heard(b"five", at_ns=7)})
    assert read_all(tmp_path)[-1] == Printed(7, b"five")


def test_a_write_that_fails_half_way_is_taken_back(tmp_path: Path):
    import resource

    keeper = store(tmp_path)
    keeper.write({AGENT: heard(b"x" * 10_000)})
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, usual[1]))
    try:
        for _ in range(3):
            keeper.write({AGENT: heard(b"y" * 60_000)})
            keeper.trouble = ""
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)
    keeper.write({AGENT: heard(b"z", at_ns=3)})
    [first, *gaps, last] = read_all(tmp_path)
    assert {gap.why for gap in gaps} == {Why.DISK}
    assert sum(gap.size_bytes for gap in gaps) == 180_000
    assert (first.data, last.data) == (b"x" * 10_000, b"z")

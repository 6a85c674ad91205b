"""One shard: one SQLite file, touched by one thread. Every method runs inside that thread's transaction."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import apsw

from agentd.config import MailboxConfig
from agentd.errors import AgentdError, Conflict, NotFound, OverLimit, QuotaExceeded, StorageError, VersionMismatch
from agentd.mailbox import journal
from agentd.mailbox.ids import id_of, next_seq, seq_of
from agentd.mailbox.rows import (
    ACCEPTED,
    ACKED,
    COLUMNS,
    DEAD,
    DELIVERED,
    DELIVERING,
    EXPIRED,
    STATES,
    Row,
    entry,
    message_of,
    new_row,
)
from agentd.paths import open_private, private_dir
from agentd.records import Change, Delivery, Draft, Message, MessageState, Receipt

FORMAT = 1
APPLICATION_ID = 0x61676D62  # "agmb"
RECOVERED_LEASE_S = 30.0
SCAN_ROWS = 5000  # of one inbox in one reserve: senders whose message is leased are passed over, but not without end
_WAL_CHECKPOINT_BYTES = 8 * 1024 * 1024  # mailbox.md §4.3

_SCHEMA = f"""
CREATE TABLE m(seq INTEGER PRIMARY KEY, agent TEXT NOT NULL, prio INTEGER NOT NULL, state INTEGER NOT NULL,
  tries INTEGER NOT NULL, due INTEGER NOT NULL, exp INTEGER NOT NULL, ts INTEGER NOT NULL, sender TEXT NOT NULL,
  reply TEXT NOT NULL, crc INTEGER NOT NULL, body BLOB NOT NULL, hist TEXT NOT NULL);
CREATE INDEX m_ready ON m(agent, prio, seq) WHERE state <= {DELIVERING};
CREATE INDEX m_dead ON m(agent, seq) WHERE state = {DEAD};
CREATE INDEX m_hist ON m(agent, seq);
CREATE TABLE idem0(k BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE idem1(k BLOB PRIMARY KEY, seq INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE meta(name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO meta VALUES ('generation', 0), ('rotated_ns', 0);
PRAGMA application_id={APPLICATION_ID};
PRAGMA user_version={FORMAT};
"""  # noqa: S608  numbers of our own
_INSERT = f"INSERT INTO m({COLUMNS}) VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)"  # noqa: S608  our own column names


class Shard:
    """The rows of some inboxes, and what is kept in memory of them.

    `depth` and `wake_ns` may be read by other threads: plain dictionaries, written by this one after each commit.
    """

    def __init__(self, directory: Path, index: int, config: MailboxConfig, clock: Callable[[], int]) -> None:
        self.path = directory / f"s{index:02d}.db"
        self.reports: list[str] = []
        self.depth: Counter[str] = Counter()
        self.wake_ns: dict[str, int] = {}
        self._journal_dir = directory / f"s{index:02d}"
        self._index = index
        self._config = config
        self._clock = clock
        self._changes: list[Change] = []
        self._records: list[Sequence[Any]] = []
        self._deltas: Counter[str] = Counter()
        self.db = self._open()
        self._journal = journal.Journal(self._journal_dir) if config.journal else None

    # -- the thread's frame around commands

    def begin(self) -> None:
        """Begin a transaction."""
        self.db.execute("BEGIN IMMEDIATE")

    def commit(self) -> list[Change]:
        """Commit; what was written is on disk when it returns. Return what changed."""
        if self._journal is not None and self._records:
            self._write_journal(self._journal)
        self.db.execute("COMMIT")
        changes, self._changes = self._changes, []
        self.depth.update(self._deltas)
        self._deltas.clear()
        return changes

    def rollback(self) -> None:
        """Forget the transaction."""
        if self.db.in_transaction:
            self.db.execute("ROLLBACK")
        self._changes.clear()
        self._records.clear()
        self._deltas.clear()

    def attempt(self, command: Callable[[Shard], Any]) -> Any:
        """Run one command in a savepoint: when it fails, its neighbours in the transaction stand."""
        marks = len(self._changes), len(self._records), self._deltas.copy()
        self.db.execute("SAVEPOINT one")
        try:
            result = command(self)
        except AgentdError as error:
            self.db.execute("ROLLBACK TO one")
            del self._changes[marks[0] :], self._records[marks[1] :]
            self._deltas = marks[2]
            result = error
        self.db.execute("RELEASE one")
        return result

    def tidy(self) -> None:
        """Do what can wait until nothing else is to be done: checkpoint, rotate keys and journal, end what expired."""
        self._rotate_keys()
        self._expire_all()
        if self._journal is not None and self._journal.full:
            self._journal.rotate()
            oldest = self.db.execute("SELECT min(seq) FROM m WHERE state <= ?", (DELIVERED,)).get
            self._journal.prune(oldest)

    def checkpoint(self) -> None:
        """Move the write-ahead log into the file, as far as nobody has to wait for it."""
        self.db.execute("PRAGMA wal_checkpoint(PASSIVE)").get  # noqa: B018  apsw runs it when the result is taken

    @property
    def wal_long(self) -> bool:
        """Tell whether the write-ahead log should be moved even while there is work."""
        wal = self.path.with_name(self.path.name + "-wal")
        return wal.exists() and wal.stat().st_size > _WAL_CHECKPOINT_BYTES

    def close(self) -> None:
        """Close the files."""
        if self._journal is not None:
            self._journal.close()
        self.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").get  # noqa: B018
        self.db.close()

    def reopen(self) -> None:
        """Recover after an I/O error: the same handle is never trusted with another commit."""
        self.db.close()
        self.db = self._open()

    # -- commands

    def put(self, drafts: Sequence[Draft]) -> list[Receipt | AgentdError]:
        """Accept messages; one that is over a limit is refused, its neighbours are accepted."""
        now_ns = self._clock()
        last_seq = self.db.execute("SELECT ifnull(max(seq), 0) FROM m").get
        rows: list[Row] = []
        keys: list[tuple[bytes, int]] = []
        results: list[Receipt | AgentdError] = []
        known: dict[bytes, int] = {}
        for draft in drafts:
            refusal = self._refusal(draft)
            if refusal is not None:
                results.append(refusal)
                continue
            digest = _key_digest(draft)
            first = known.get(digest) or self._known_key(digest) if digest else None
            if first:
                results.append(self._first_receipt(first, draft))
                continue
            last_seq = next_seq(last_seq, now_ns, self._index)
            rows.append(new_row(last_seq, draft, now_ns))
            self._deltas[draft.to] += 1
            self.wake_ns[draft.to] = 0
            if digest:
                known[digest] = last_seq
                keys.append((digest, last_seq))
            results.append(Receipt(id_of(last_seq), draft.to))
        self._insert(rows, keys)
        return results

    def reserve(self, agent: str, limit: int, max_bytes: int, lease_s: float) -> list[Delivery]:
        """Lease what may be delivered now, in order; no message overtakes an earlier one of its sender."""
        now_ns = self._clock()
        due_ns = now_ns + round(lease_s * 1e9)
        taken: list[Message] = []
        expired: list[Message] = []
        blocked: set[str] = set()
        wake_ns = due_ns
        size_bytes = 0
        rows = self._waiting(agent)
        for row in rows:
            state, due, exp, sender = row[3], row[5], row[6], row[8]
            if due > now_ns:
                blocked.add(sender)
                wake_ns = min(wake_ns, due)
            if sender in blocked:
                continue
            message = self._whole(row)
            if message is None:
                continue
            if exp and exp <= now_ns and state == ACCEPTED:
                expired.append(message)
                continue
            size_bytes += len(row[11])
            if taken and (len(taken) == limit or size_bytes > max_bytes):
                wake_ns = now_ns
                break
            taken.append(message)
        rows.close()
        self._move(expired, EXPIRED, "its time to live ran out")
        self._move(taken, DELIVERING, "", due_ns=due_ns, attempt=True)
        self.wake_ns[agent] = wake_ns
        return [Delivery(message, message.attempts + 1) for message in taken]

    def deliver(self, deliveries: Sequence[Delivery], detail: str) -> list[bool]:
        """Mark leased messages as delivered; an answer of an older attempt changes nothing."""
        return self._settle(deliveries, DELIVERED, detail)

    def release(self, deliveries: Sequence[Delivery], detail: str) -> list[bool]:
        """Put leased messages back; the attempt does not count."""
        return self._settle(deliveries, ACCEPTED, detail, attempts=-1)

    def nack(
        self, items: Sequence[Delivery | str], delay_s: float, detail: str, max_attempts: int, agent: str | None
    ) -> list[AgentdError | None]:
        """Put messages back, to be offered after the delay; after the last attempt they are dead."""
        results: list[AgentdError | None] = []
        for item in items:
            id_ = item if isinstance(item, str) else item.message.id
            try:
                message = self._own(id_, agent)
                if message.state.final:
                    raise Conflict(f"{id_} is {message.state} already")
                if isinstance(item, Delivery) and not _current(item, message):
                    raise Conflict(f"{id_} was leased again meanwhile")
            except AgentdError as error:
                results.append(error)
                continue
            if message.attempts >= max_attempts:
                self._move([message], DEAD, f"given up after {message.attempts} attempts: {detail}")
            else:
                due_ns = self._clock() + round(delay_s * 1e9)
                self._move([message], ACCEPTED, detail, due_ns=due_ns)
                self.wake_ns[message.to] = min(self.wake_ns.get(message.to, due_ns), due_ns)
            results.append(None)
        return results

    def ack(self, ids: Sequence[str], by: str, agent: str | None) -> list[AgentdError | None]:
        """Mark messages as dealt with; doing it twice is no error."""
        results: list[AgentdError | None] = []
        done: list[Message] = []
        for id_ in ids:
            try:
                message = self._own(id_, agent)
                if message.state in (MessageState.DEAD, MessageState.EXPIRED):
                    raise Conflict(f"{id_} is {message.state} already")
            except AgentdError as error:
                results.append(error)
                continue
            if message.state is not MessageState.ACKED:
                done.append(message)
            results.append(None)
        self._move(done, ACKED, f"by {by}")
        return results

    def retry(self, ids: Sequence[str]) -> list[AgentdError | None]:
        """Offer dead letters again, with all their attempts."""

        def again(message: Message) -> None:
            self._move([message], ACCEPTED, "offered again")
            self.db.execute("UPDATE m SET tries=0 WHERE seq=?", (seq_of(message.id),))
            self.wake_ns[message.to] = 0

        return self._of_dead(ids, again)

    def drop(self, ids: Sequence[str]) -> list[AgentdError | None]:
        """Delete dead letters."""
        return self._of_dead(ids, lambda m: self.db.execute("DELETE FROM m WHERE seq=?", (seq_of(m.id),)))

    def get(self, id_: str) -> Message | None:
        """Return a message of this shard, or None."""
        seq = seq_of(id_)
        row = self.db.execute(f"SELECT {COLUMNS} FROM m WHERE seq=?", (seq,)).fetchone()  # noqa: S608
        return message_of(row) if row else None

    def inbox(self, agent: str, states: Sequence[MessageState], limit: int) -> list[Message]:
        """Return an inbox's oldest messages in these states."""
        codes = ",".join(str(STATES.index(state)) for state in states)
        query = f"SELECT {COLUMNS} FROM m WHERE agent=? AND state IN ({codes}) ORDER BY seq LIMIT ?"  # noqa: S608
        return [m for row in self.db.execute(query, (agent, limit)) if (m := self._whole(row)) is not None]

    def answer_to(self, agent: str, id_: str) -> Message | None:
        """Return the first message in an inbox that answers the one with the id."""
        query = f"SELECT {COLUMNS} FROM m WHERE agent=? AND seq>? AND reply=? ORDER BY seq LIMIT 1"  # noqa: S608
        row = self.db.execute(query, (agent, (seq_of(id_) or 0) & ~0xF, id_)).fetchone()
        return message_of(row) if row else None

    def counts(self) -> dict[str, int]:
        """Return how many messages are in which state."""
        return {STATES[code].value: n for code, n in self.db.execute("SELECT state, count(*) FROM m GROUP BY state")}

    def recover(self) -> list[Delivery]:
        """Return what was being delivered when the last daemon ended, under a new lease; no back-off outlives it."""
        due_ns = self._clock() + round(RECOVERED_LEASE_S * 1e9)
        self.db.execute("UPDATE m SET due=CASE state WHEN 1 THEN ? ELSE 0 END WHERE state<=1", (due_ns,))
        query = f"SELECT {COLUMNS} FROM m WHERE state=? ORDER BY seq"  # noqa: S608
        found = [self._whole(row) for row in self.db.execute(query, (DELIVERING,))]
        return [Delivery(message, message.attempts) for message in found if message is not None]

    # -- inside

    def _refusal(self, draft: Draft) -> AgentdError | None:
        size_bytes = len(draft.body.encode(errors="surrogatepass"))
        if size_bytes > self._config.max_body_bytes:
            return OverLimit(
                f"the body is {size_bytes} bytes; mailbox.max_body_bytes allows {self._config.max_body_bytes}",
                hint="send a path to a file instead",
            )
        if self.depth[draft.to] + self._deltas[draft.to] >= self._config.max_inbox_messages:
            return QuotaExceeded(
                f"the inbox holds {self._config.max_inbox_messages} undelivered messages, its limit",
                hint="wait until its agent has read some, or raise mailbox.max_inbox_messages",
            )
        return None

    def _first_receipt(self, seq: int, draft: Draft) -> Receipt:
        state = self.db.execute("SELECT state FROM m WHERE seq=?", (seq,)).get
        return Receipt(id_of(seq), draft.to, STATES[state or ACCEPTED], duplicate=True)

    def _insert(self, rows: Sequence[Row], keys: Sequence[tuple[bytes, int]]) -> None:
        self.db.executemany(_INSERT, rows)
        if keys:
            generation = self.db.execute("SELECT value FROM meta WHERE name='generation'").get
            self.db.executemany(f"INSERT INTO idem{generation} VALUES (?,?)", keys)  # noqa: S608
        for row in rows:
            self._records.append([journal.PUT, *row])
            self._changes.append(Change(id_of(row[0]), row[1], MessageState.ACCEPTED, row[8], row[9] or None))

    def _known_key(self, digest: bytes) -> int | None:
        query = "SELECT seq FROM idem0 WHERE k=?1 UNION ALL SELECT seq FROM idem1 WHERE k=?1 LIMIT 1"
        seq: int | None = self.db.execute(query, (digest,)).get
        return seq

    def _waiting(self, agent: str) -> apsw.Cursor:
        query = f"SELECT {COLUMNS} FROM m WHERE agent=? AND state<={DELIVERING} ORDER BY prio, seq LIMIT ?"  # noqa: S608
        return self.db.execute(query, (agent, SCAN_ROWS))

    def _whole(self, row: Sequence[Any]) -> Message | None:
        try:
            return message_of(row)
        except StorageError as error:
            if error.message not in self.reports:
                self.reports.append(error.message)
            return None

    def _own(self, id_: str, agent: str | None) -> Message:
        message = self.get(id_)
        if message is None or (agent is not None and message.to != agent):
            raise NotFound(f"no message `{id_}`", hint="`agentd inbox` lists ids")
        return message

    def _settle(self, deliveries: Sequence[Delivery], state: int, detail: str, *, attempts: int = 0) -> list[bool]:
        moved: list[Message] = []
        results = []
        for delivery in deliveries:
            message = self.get(delivery.message.id)
            valid = message is not None and message.state is MessageState.DELIVERING and _current(delivery, message)
            results.append(valid)
            if valid and message is not None:
                moved.append(message)
        self._move(moved, state, detail)
        if attempts:
            self.db.executemany("UPDATE m SET tries=tries+? WHERE seq=?", [(attempts, seq_of(m.id)) for m in moved])
        for message in moved:
            if state == ACCEPTED:
                self.wake_ns[message.to] = 0
        return results

    def _move(
        self, messages: Sequence[Message], state: int, detail: str, *, due_ns: int = 0, attempt: bool = False
    ) -> None:
        """Bring messages into a state: row, history, journal, depth and those who wait are told in one place."""
        at_ns = time.time_ns()
        note = entry(state, at_ns, detail)
        self.db.executemany(
            "UPDATE m SET state=?, due=?, tries=tries+?, hist=hist||? WHERE seq=?",
            [(state, due_ns, int(attempt), note, seq_of(message.id)) for message in messages],
        )
        for message in messages:
            self._deltas[message.to] += (state <= DELIVERING) - (STATES.index(message.state) <= DELIVERING)
            self._changes.append(
                Change(message.id, message.to, STATES[state], message.sender, message.reply_to, detail)
            )
            if state != DELIVERING:
                self._records.append([journal.REACHED, seq_of(message.id), state])

    def _of_dead(self, ids: Sequence[str], do: Callable[[Message], object]) -> list[AgentdError | None]:
        results: list[AgentdError | None] = []
        for id_ in ids:
            message = self.get(id_)
            if message is None:
                results.append(NotFound(f"no message `{id_}`", hint="`agentd dead` lists dead letters"))
            elif message.state is not MessageState.DEAD:
                results.append(Conflict(f"{id_} is {message.state}, not dead"))
            else:
                do(message)
                results.append(None)
        return results

    def _write_journal(self, file: journal.Journal) -> None:
        records, self._records = self._records, []
        try:
            file.append(records)
        except OSError as error:  # the copy is a help, never a condition: the file itself decides
            self.reports.append(f"the journal of {self.path.name} could not be written: {error.strerror}")

    def _expire_all(self) -> None:
        query = f"SELECT {COLUMNS} FROM m WHERE state={ACCEPTED} AND exp>0 AND exp<=? LIMIT 1000"  # noqa: S608
        found = [self._whole(row) for row in self.db.execute(query, (self._clock(),)).fetchall()]
        self._move([message for message in found if message is not None], EXPIRED, "its time to live ran out")

    def _rotate_keys(self) -> None:
        meta = dict(self.db.execute("SELECT name, value FROM meta"))
        now_ns = self._clock()
        if now_ns - meta["rotated_ns"] < self._config.key_window_s * 1e9:
            return
        following = 1 - meta["generation"]
        if meta["rotated_ns"]:
            self.db.execute(f"DELETE FROM idem{following}")  # noqa: S608
        self.db.execute("UPDATE meta SET value=? WHERE name='generation'", (following,))
        self.db.execute("UPDATE meta SET value=? WHERE name='rotated_ns'", (now_ns,))

    # -- opening

    def _open(self) -> apsw.Connection:
        private_dir(str(self._journal_dir))
        try:
            db = self._connect()
            self._load(db)
        except (apsw.CorruptError, apsw.NotADBError, _Damaged) as error:
            self._set_aside(str(error))
            db = self._connect()
            self._rebuild(db)
            self._load(db)
        return db

    def _connect(self) -> apsw.Connection:
        os.close(open_private(str(self.path), os.O_RDWR | os.O_CREAT))
        db = apsw.Connection(str(self.path))
        version = db.execute("PRAGMA user_version").get
        if version > FORMAT:
            db.close()
            raise VersionMismatch(
                f"{self.path} has format {version} and this agentd knows {FORMAT}; it was left untouched",
                hint="upgrade agentd",
            )
        db.execute("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=0; PRAGMA mmap_size=0")
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)").get  # noqa: B018
        if version == 0:
            with db:
                db.execute(_SCHEMA)
            _sync_dir(self.path.parent)
        return db

    def _load(self, db: apsw.Connection) -> None:
        verdict = db.execute("PRAGMA quick_check").get
        if verdict != "ok":
            db.close()
            raise _Damaged(verdict)
        depth = db.execute(f"SELECT agent, count(*) FROM m WHERE state<={DELIVERING} GROUP BY agent")  # noqa: S608
        self.depth = Counter({str(agent): int(n) for agent, n in depth})  # type: ignore[arg-type]  apsw types a row loosely
        self.wake_ns = dict.fromkeys(self.depth, 0)

    def _set_aside(self, why: str) -> None:
        kept = self.path.with_name(f"{self.path.name}.damaged-{time.time_ns()}")
        for suffix in ("", "-wal", "-shm"):
            file = self.path.with_name(self.path.name + suffix)
            if file.exists():
                file.rename(kept.with_name(kept.name + suffix))
        self.reports.append(
            f"{self.path.name} was damaged ({why}) and is kept as {kept.name}; rebuilt from its journal"
        )

    def _rebuild(self, db: apsw.Connection) -> None:
        with db:
            for file in journal.files(self._journal_dir):
                for record in journal.read(file):
                    if record[0] == journal.PUT:
                        db.execute(_INSERT.replace("INSERT", "INSERT OR IGNORE"), record[1:])
                    else:
                        db.execute("UPDATE m SET state=? WHERE seq=?", (record[2], record[1]))


class _Damaged(Exception):
    """Raised when a shard's structure is not whole."""


def _current(delivery: Delivery, message: Message) -> bool:
    return message.attempts == delivery.attempt


def _key_digest(draft: Draft) -> bytes:
    if draft.key is None:
        return b""
    return blake2b("\0".join((draft.sender, draft.to, draft.key)).encode(), digest_size=16).digest()


def _sync_dir(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""All transcripts on disk, as the one thread sees them that writes them. Everything here blocks."""

from __future__ import annotations

import errno
import shutil
import time
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Final

from agentd.config import TranscriptsConfig
from agentd.errors import AgentdError
from agentd.transcripts.folder import Extent
from agentd.transcripts.segment import Missing, Piece, Why, cut
from agentd.transcripts.track import Track
from agentd.transcripts.waiting import Heard

_FRESH_S: Final = 1.0  # between looks at how much of the disk is free
_AGAIN_BYTES: Final = 1_000_000  # free, before it is tried again after a failure
_DAY_NS: Final = 86_400_000_000_000

Decode = Callable[[bytes], bytes]


class Store:
    """Writes what agents printed; a disk that takes no more stops it, and nothing else."""

    def __init__(
        self, directory: Path, config: TranscriptsConfig, decode: Decode, report: Callable[[str], None]
    ) -> None:
        self._directory = directory
        self._config = config
        self._decode = decode
        self._report = report
        self._tracks: dict[str, Track] = {}
        self._lost: dict[str, int] = {}  # bytes that the disk did not take, by agent
        self._looked_s = 0.0
        self.trouble = ""  # why nothing is written at the moment

    @property
    def size_bytes(self) -> int:
        """Return what all files take that were looked at so far; for other threads, too."""
        return sum(track.size_bytes for track in list(self._tracks.values()))

    def write(self, batch: Mapping[str, Heard]) -> None:
        """Write a batch; what the disk does not take is counted, and `trouble` says why."""
        self._look_at_the_disk()
        for agent_id, heard in batch.items():
            if heard.forgotten:
                self._forget(agent_id)
            if heard.forgotten and not heard.entries:
                continue
            self._write_one(agent_id, heard)
        for agent_id in list(self._lost):
            if self.trouble:
                break
            self._write_one(agent_id, Heard(time.time_ns()))

    def _look_at_the_disk(self) -> None:
        now_s = time.monotonic()
        if now_s - self._looked_s < _FRESH_S:
            return
        self._looked_s = now_s
        try:
            place = self._directory if self._directory.exists() else self._directory.parent
            free = shutil.disk_usage(place).free
        except (OSError, AgentdError) as error:
            self.trouble = _said(error)
            return
        reserve_mb = self._config.reserve_mb
        if free < reserve_mb * 1_000_000:
            self.trouble = f"less than {reserve_mb} MB of the disk are free"
        elif free > _AGAIN_BYTES:  # a full disk may still take a few bytes now and then
            self.trouble = ""

    def _write_one(self, agent_id: str, heard: Heard) -> None:
        pieces = self._pieces(agent_id, heard)
        written = 0
        if not self.trouble:
            try:
                track = self.track(agent_id)
                before = track.end
                try:
                    if pieces:
                        track.append(pieces)
                    if heard.ended:
                        track.close()
                finally:
                    written = track.end - before
                self._keep_within(track)
            except (OSError, AgentdError) as error:
                self.trouble = _said(error)
                self._looked_s = time.monotonic()
        self._count_lost(agent_id, pieces, written)

    def _pieces(self, agent_id: str, heard: Heard) -> list[Piece]:
        lost = self._lost.get(agent_id, 0)
        pieces: list[Piece] = [Missing(heard.at_ns, Why.DISK, lost)] if lost else []
        for is_output, entries in groupby(heard.entries, lambda entry: isinstance(entry, bytes)):
            if is_output:
                escaped = b"".join(entry for entry in entries if isinstance(entry, bytes))
                pieces += cut(self._decode(escaped), heard.at_ns)
            else:
                pieces += [Missing(heard.at_ns, entry) for entry in entries if isinstance(entry, Why)]
        if heard.flooded_bytes:
            pieces.append(Missing(heard.at_ns, Why.FLOOD, heard.flooded_bytes))
        return pieces

    def _count_lost(self, agent_id: str, pieces: list[Piece], written: int) -> None:
        """Count what stands behind the positions that were written."""
        lost = 0
        for piece in pieces:
            written -= piece.positions
            if written < 0:
                lost += piece.size_bytes if isinstance(piece, Missing) else len(piece.data)
        if lost:
            self._lost[agent_id] = lost
        else:
            self._lost.pop(agent_id, None)

    def track(self, agent_id: str) -> Track:
        """Return an agent's files; raises OSError, InvalidValue when they cannot be looked at."""
        track = self._tracks.get(agent_id)
        if track is None:
            track = self._tracks[agent_id] = Track(self._directory / agent_id, self._report)
        return track

    def known(self, agent_id: str) -> Extent | None:
        """Return what is written of an agent, None when its files were not looked at yet; for other threads, too."""
        track = self._tracks.get(agent_id)
        return track.extent if track else None

    def _forget(self, agent_id: str) -> None:
        self._lost.pop(agent_id, None)
        self._tracks.pop(agent_id, None)
        try:
            Track(self._directory / agent_id, self._report).remove()
        except (OSError, AgentdError) as error:
            self._report(f"the transcript of {agent_id} could not be removed ({_said(error)})")

    # -- keeping

    def _keep_within(self, track: Track) -> None:
        most_bytes = self._config.agent_mb * 1_000_000
        while track.size_bytes > most_bytes and track.oldest_ns is not None:
            track.remove_oldest()

    def keep(self, now_ns: int) -> int:
        """Remove what is kept for too long or is too much; returns how many segments that were."""
        for directory in sorted(self._directory.iterdir()) if self._directory.is_dir() else []:
            if _is_agent(directory.name):
                self.track(directory.name)
        removed = self._remove_old(now_ns)
        most_bytes = self._config.total_mb * 1_000_000
        excess = self.size_bytes - most_bytes
        while excess > 0 and (oldest := self._oldest()):
            excess -= oldest.remove_oldest()
            removed += 1
        return removed

    def _remove_old(self, now_ns: int) -> int:
        if not self._config.keep_days:
            return 0
        removed = 0
        before_ns = now_ns - int(self._config.keep_days * _DAY_NS)
        for track in self._tracks.values():
            while (oldest_ns := track.oldest_ns) is not None and oldest_ns < before_ns:
                track.remove_oldest()
                removed += 1
            removed += track.remove_open(before_ns)
        return removed

    def _oldest(self) -> Track | None:
        found = [(track.oldest_ns, n, track) for n, track in enumerate(self._tracks.values()) if track.oldest_ns]
        return min(found)[2] if found else None


def _is_agent(name: str) -> bool:
    return name[:1].isdigit()


def _said(error: OSError | AgentdError) -> str:
    if isinstance(error, AgentdError):
        return error.message
    return "the disk is full" if error.errno == errno.ENOSPC else error.strerror or str(error)

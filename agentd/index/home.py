"""Where an index lives on disk: opened, made anew when it is damaged, closed. Everything here blocks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

from agentd.config import SearchConfig
from agentd.errors import InvalidValue, StorageError
from agentd.index.engine import FORMAT, Entry, Hit, Index, IndexDamaged, Within
from agentd.index.query import Query
from agentd.private import private_dir


class IndexHome:
    """The one index in a directory: of the engine in use and the format of today; any other is removed."""

    def __init__(
        self,
        directory: Path,
        of: str,
        config: SearchConfig,
        shards: Iterable[int],
        report: Callable[[str], None],
    ) -> None:
        """Find the engine; `of` says what is indexed. Raises InvalidValue when the engine is not installed."""
        self._of = of
        self.engine = _engine(config)
        self._directory = directory
        self._place = directory / f"{self.engine}-{FORMAT}"
        self._shards = frozenset(shards)
        self._report = report
        self._index: Index | None = None

    @property
    def watermarks(self) -> Mapping[int, int]:
        """Return how far each shard was read, as committed."""
        return self._index.watermarks if self._index else {}

    def open(self) -> None:
        """Open the index; one that is damaged or was made from other shards is begun anew.

        Raises InvalidValue for a directory that is not private, StorageError when the disk refuses.
        """
        private_dir(str(self._directory))
        try:
            self._remove_others()
            self._index = self._opened()
            if self._index.watermarks.keys() - self._shards:
                raise IndexDamaged("it was made from other shards")
        except (IndexDamaged, OSError) as error:
            self.begin_anew(str(error))

    def begin_anew(self, why: str) -> None:
        """Put an empty index in the place of whatever is there; raises StorageError when the disk refuses."""
        self._report(f"the index of {self._of} is made again: {why}")
        self.close()
        try:
            self._remove_others()
            if self._place.exists():
                self._place.rename(self._place.with_suffix(".old"))  # half removed it could look like a whole one
                self._remove_others()
            self._index = self._opened()
        except (IndexDamaged, OSError) as error:
            raise StorageError(
                f"the index of {self._of} cannot be written ({error}); the {self._of} are not affected",
                hint="check the disk; it is tried again",
            ) from None

    def close(self) -> None:
        """Let go of the index; what was not committed is forgotten."""
        index, self._index = self._index, None
        if index:
            with suppress(IndexDamaged):  # the next opening looks at what is on disk
                index.close()

    # -- what the index does, for as long as it is open

    def add(self, entries: Sequence[Entry]) -> None:
        """Take in texts; they are found after the next commit."""
        self._there().add(entries)

    def commit(self, watermarks: Mapping[int, int]) -> None:
        """Put on disk what was added together with how far that goes."""
        self._there().commit(watermarks)

    def search(self, query: Query, within: Within, limit: int) -> list[Hit]:
        """Return the best texts, best first."""
        return self._there().search(query, within, limit)

    def _there(self) -> Index:
        if self._index is None:
            raise StorageError(
                f"the index of {self._of} is not open", hint="the daemon's log says why; it is tried again"
            )
        return self._index

    def _opened(self) -> Index:
        place = Path(private_dir(str(self._place)))
        if self.engine == "tantivy":
            from agentd.index.tantivy_index import TantivyIndex

            return TantivyIndex(place)
        from agentd.index.fts5_index import Fts5Index

        return Fts5Index(place)

    def _remove_others(self) -> None:
        for other in self._directory.iterdir():
            if other.is_symlink() or not other.is_dir():
                other.unlink()
            elif other != self._place:
                shutil.rmtree(other)


def _engine(config: SearchConfig) -> str:
    installed = find_spec("tantivy") is not None
    if config.engine == "tantivy" and not installed:
        raise InvalidValue(
            "search.engine is tantivy, which is not installed",
            hint="pip install 'agentd[search]', or set search.engine = auto",
        )
    return "tantivy" if installed and config.engine != "fts5" else "fts5"

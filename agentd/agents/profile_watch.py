"""The watch over the user's profiles: what is changed is taken up without a restart, what is bad is said and left."""

from __future__ import annotations

from collections.abc import Callable

import anyio
import anyio.to_thread

from agentd.agents.profile import Profiles, Shelf
from agentd.agents.profile_files import BUILT_IN, Stamp, stamp
from agentd.events import Events
from agentd.logs import Log

POLL_S = 0.5


class ProfileWatch:
    """Looks at the directory now and then, and reads it when it has changed and stayed so from one look to the next."""

    def __init__(self, profiles: Profiles, on_changed: Callable[[str], None], events: Events, log: Log) -> None:
        self._profiles = profiles
        self._on_changed = on_changed
        self._events = events
        self._log = log

    async def run(self) -> None:
        """Watch until cancelled; what was bad at the start is told first."""
        self._tell_refused(Shelf({}, {}, {}), self._profiles.shelf)
        taken: Stamp | None = None  # read once more: it may have changed since the daemon read it
        before: Stamp = {}
        while True:
            now = await anyio.to_thread.run_sync(stamp, self._profiles.user_dir)
            if now == before and now != taken:
                taken = now
                await self._read()
            before = now
            await anyio.sleep(POLL_S)

    async def _read(self) -> None:
        before = self._profiles.shelf
        self._profiles.shelf = after = await anyio.to_thread.run_sync(self._profiles.read)
        for name in sorted(before.profiles.keys() | after.profiles.keys()):
            if before.profiles.get(name) != after.profiles.get(name):
                self._tell(name, before, after)
        self._tell_refused(before, after)

    def _tell(self, name: str, before: Shelf, after: Shelf) -> None:
        """Tell of a profile that is another now; agents whose file was removed go on with what it said."""
        removed = after.origins.get(name, BUILT_IN) == BUILT_IN
        what = "removed" if removed else "changed" if name in before.profiles else "new"
        row = {"profile": name, "what": what, "file": before.origins[name] if removed else after.origins[name]}
        self._log.info("a profile was taken up", **row)
        self._events.emit("profile.loaded", **row)
        if not removed or name not in before.profiles:  # adopted while its file was bad: ours is better than none
            self._on_changed(name)

    def _tell_refused(self, before: Shelf, after: Shelf) -> None:
        for path, error in after.refused.items():
            if path in before.refused and before.refused[path].message == error.message:
                continue
            name = path.rpartition("/")[2].removesuffix(".toml")
            row = {"profile": name, "file": path, "reason": error.message, "kept": name in after.profiles}
            self._log.warning("a profile was refused", **row)
            self._events.emit("profile.refused", **row)

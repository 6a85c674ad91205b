"""The watch over profiles not of ours: what changes is taken up without a restart, what is bad is said and left."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import anyio
import anyio.to_thread

from agentd.agents.profile import Profiles, Shelf
from agentd.agents.profile_files import BUILT_IN, Stamp, stamp
from agentd.agents.projects import Projects
from agentd.events import Events
from agentd.logs import Log

POLL_S = 0.5

Tell = Callable[[str], None]  # of a profile, by its name


class ProfileWatch:
    """Looks at the user's directory and the trusted project files now and then, and reads what has changed.

    A file has changed when it is another and stayed so from one look to the next.
    """

    def __init__(
        self, profiles: Profiles, projects: Projects, on_changed: Tell, on_removed: Tell, events: Events, log: Log
    ) -> None:
        self._profiles = profiles
        self._projects = projects
        self._on_changed = on_changed
        self._on_removed = on_removed
        self._events = events
        self._log = log
        self._trusted_paths: Sequence[str] = ()
        self._asked: list[anyio.Event] = []
        self._wake = anyio.Event()

    async def run(self) -> None:
        """Watch until cancelled; what was bad at the start is told first."""
        self._tell_refused(Shelf({}, {}, {}), self._profiles.shelf)
        taken: Stamp | None = None  # read once more: it may have changed since the daemon read it
        before: Stamp = {}
        while True:
            asked, self._asked, self._wake = self._asked, [], anyio.Event()
            now = await anyio.to_thread.run_sync(stamp, self._profiles.user_dir, self._trusted_paths)
            if asked or (now == before and now != taken):
                taken = now
                await self._read()
            for done in asked:
                done.set()
            before = now
            with anyio.move_on_after(POLL_S):
                await self._wake.wait()

    async def look_now(self) -> None:
        """Have everything read at once, and return when it is in force."""
        done = anyio.Event()
        self._asked.append(done)
        self._wake.set()
        await done.wait()

    async def _read(self) -> None:
        trusted = await self._projects.trusted()
        self._trusted_paths = trusted.paths
        before = self._profiles.shelf
        read = partial(self._profiles.read, trusted.profiles)
        self._profiles.shelf = after = await anyio.to_thread.run_sync(read)
        for name in sorted(before.profiles.keys() | after.profiles.keys()):
            if before.profiles.get(name) != after.profiles.get(name):
                self._tell(name, before, after)
        self._tell_refused(before, after)

    def _tell(self, name: str, before: Shelf, after: Shelf) -> None:
        """Tell of a profile that is another now; agents whose file was removed go on with what it said."""
        removed = self._is_removed(name, before, after)
        what = "removed" if removed else "changed" if name in before.profiles else "new"
        row = {"profile": name, "what": what, "file": before.origins[name] if removed else after.origins[name]}
        self._log.info("a profile was taken up", **row)
        self._events.emit("profile.loaded", **row)
        if not removed or name not in before.profiles:  # adopted while its file was bad: ours is better than none
            self._on_changed(name)
        else:
            self._on_removed(name)

    def _is_removed(self, name: str, before: Shelf, after: Shelf) -> bool:
        """Tell whether a profile is gone, whoever has its name now: only the user's own comes over another's agents."""
        origin = after.origins.get(name, BUILT_IN)
        if name not in after.profiles or origin == BUILT_IN:
            return True
        return name in before.profiles and origin != before.origins[name] and not self._profiles.is_users(origin)

    def _tell_refused(self, before: Shelf, after: Shelf) -> None:
        for path, error in after.refused.items():
            if path in before.refused and before.refused[path].message == error.message:
                continue
            name = path.rpartition("/")[2].removesuffix(".toml")
            row = {"profile": name, "file": path, "reason": error.message, "kept": name in after.profiles}
            self._log.warning("a profile was refused", **row)
            self._events.emit("profile.refused", **row)

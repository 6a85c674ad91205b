"""Work in a worktree is never lost: every kind of it keeps the worktree, or at least the commits."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import anyio
import pytest
from fault_rows import LONG
from hypothesis import example, given, settings
from hypothesis import strategies as st
from repositories import Scene

from agentd.agents.worktree_removal import open_up
from agentd.agents.worktrees import Worktree
from agentd.errors import AgentdError

pytestmark = pytest.mark.anyio

Do = Callable[[Scene, Path], object]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def edit(scene: Scene, path: Path) -> None:
    (path / "a.txt").write_text("edited\n")


def untracked(scene: Scene, path: Path) -> None:
    (path / "new dir").mkdir()
    (path / "new dir" / "ünï\n.txt").write_text("new\n")


def staged(scene: Scene, path: Path) -> None:
    """Stage a file that is on the disk as it was: only the index has the work."""
    edit(scene, path)
    scene.git(path, "add", "a.txt")
    (path / "a.txt").write_text("a\n" * 20)


def removed(scene: Scene, path: Path) -> None:
    (path / "a.txt").unlink()


def renamed(scene: Scene, path: Path) -> None:
    scene.git(path, "mv", "a.txt", "z.txt")


def mode(scene: Scene, path: Path) -> None:
    (path / "a.txt").chmod(0o755)


def intended(scene: Scene, path: Path) -> None:
    untracked(scene, path)
    scene.git(path, "add", "-N", ".")


def diverged(scene: Scene, path: Path) -> None:
    scene.git(path, "branch", "other")
    edit(scene, path)
    scene.commit(path, "ours")
    scene.git(path, "checkout", "-q", "other")
    (path / "a.txt").write_text("theirs\n")
    scene.commit(path, "theirs")


def rebasing(scene: Scene, path: Path) -> None:
    diverged(scene, path)
    scene.git(path, "rebase", "-", ok=False)


def picking(scene: Scene, path: Path) -> None:
    diverged(scene, path)
    scene.git(path, "cherry-pick", "@{-1}", ok=False)
    scene.git(path, "checkout", "-q", "--ours", "a.txt")


def merging(scene: Scene, path: Path) -> None:
    diverged(scene, path)
    scene.git(path, "merge", "@{-1}", ok=False)


def merged_but_not_committed(scene: Scene, path: Path) -> None:
    """A merge that changes no file: nothing but git's own note tells of it."""
    scene.git(path, "checkout", "-q", "-b", "other")
    scene.commit(path, "empty")
    scene.git(path, "checkout", "-q", "-")
    scene.git(path, "merge", "-q", "--no-ff", "--no-commit", "other")


def reverting(scene: Scene, path: Path) -> None:
    scene.git(path, "revert", "--no-commit", "HEAD")


def bisecting(scene: Scene, path: Path) -> None:
    scene.git(path, "bisect", "start")


def stashed(scene: Scene, path: Path) -> None:
    edit(scene, path)
    scene.git(path, "stash")


def stashed_with_words(scene: Scene, path: Path) -> None:
    untracked(scene, path)
    scene.git(path, "stash", "push", "-q", "-u", "-m", "for later")


def detached(scene: Scene, path: Path) -> None:
    scene.git(path, "checkout", "-q", "--detach")
    scene.commit(path, "on no branch")


def private_ref(scene: Scene, path: Path) -> None:
    head = scene.git(path, "rev-parse", "HEAD")
    scene.git(path, "update-ref", "refs/worktree/mine", scene.commit(path, "set aside"))
    scene.git(path, "reset", "-q", "--hard", head)


def locked(scene: Scene, path: Path) -> None:
    scene.git(path, "worktree", "lock", "--reason", "demo on Friday", str(path))


def nested(scene: Scene, path: Path) -> None:
    (path / "nested").mkdir()
    scene.git(path / "nested", "init", "-q")
    scene.commit(path / "nested", "inside")


def replaced(scene: Scene, path: Path) -> None:
    """Make a repository of the agent's own where the worktree was; to the outer one nothing has changed."""
    (path / ".git").unlink()
    scene.git(path, "init", "-q")
    scene.commit(path, "of its own")


def assumed(scene: Scene, path: Path) -> None:
    scene.git(path, "update-index", "--assume-unchanged", "a.txt")
    edit(scene, path)


def skipped(scene: Scene, path: Path) -> None:
    scene.git(path, "update-index", "--skip-worktree", "a.txt")
    edit(scene, path)


def unlisted(scene: Scene, path: Path) -> None:
    """Tell git to show no untracked files, as some do to make it faster."""
    scene.git(path, "config", "status.showUntrackedFiles", "no")
    untracked(scene, path)


def submodule(scene: Scene, path: Path) -> None:
    scene.new("lib")
    scene.git(path, "-c", "protocol.file.allow=always", "submodule", "-q", "add", str(scene.top / "lib"), "lib")
    scene.commit(path, "with a submodule")


def submodule_edited(scene: Scene, path: Path) -> None:
    submodule(scene, path)
    (path / "lib" / "new").write_text("x")
    scene.git(path, "config", "diff.ignoreSubmodules", "all")


def submodule_ahead(scene: Scene, path: Path) -> None:
    """Commit in the submodule and in the worktree: the files are clean, and the commit is in no other repository."""
    submodule(scene, path)
    scene.commit(path / "lib", "in the submodule")
    scene.commit(path, "moved on")


def submodule_stashed(scene: Scene, path: Path) -> None:
    submodule(scene, path)
    (path / "lib" / "a.txt").write_text("x")
    scene.git(path / "lib", "stash")


def broken_index(scene: Scene, path: Path) -> None:
    Path(scene.git(path, "rev-parse", "--git-path", "index")).write_bytes(b"DIRC damaged")


FILES: list[tuple[Do, str]] = [
    (edit, "1 changed file (a.txt)"),
    (untracked, "1 changed file (new dir/)"),
    (staged, "1 changed file (a.txt)"),
    (removed, "1 changed file (a.txt)"),
    (renamed, "2 changed files (a.txt, z.txt)"),
    (mode, "1 changed file (a.txt)"),
    (intended, "1 changed file"),
    (rebasing, "a rebase in progress"),
    (picking, "a cherry-pick in progress"),
    (merging, "a merge in progress"),
    (merged_but_not_committed, "a merge in progress"),
    (reverting, "a revert in progress"),
    (bisecting, "a bisection in progress"),
    (stashed, "a stash"),
    (stashed_with_words, "a stash"),
    (nested, "1 changed file (nested/)"),
    (replaced, "a .git that is not the worktree's own"),
    (assumed, "1 changed file (a.txt)"),
    (skipped, "1 changed file (a.txt)"),
    (unlisted, "1 changed file (new dir/)"),
    (submodule_edited, "1 changed file (lib)"),
    (broken_index, "could not be looked at"),
]
HELD: list[tuple[Do, str]] = [
    (detached, "1 commit on no branch"),
    (private_ref, "1 commit on no branch"),
    (locked, "a lock (demo on Friday)"),
    (submodule_ahead, "commits of the submodule lib on no remote"),
    (submodule_stashed, "commits of the submodule lib on no remote"),
]


def files_of(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}


WORK = [(*each, False) for each in FILES] + [(*each, True) for each in HELD]


@pytest.mark.parametrize(("do", "words", "held"), WORK, ids=lambda value: getattr(value, "__name__", ""))
async def test_every_kind_of_work_keeps_the_worktree_as_it_is_and_what_is_nowhere_else_even_from_force(
    scene: Scene, do: Do, words: str, held: bool
):
    made = await scene.create()
    do(scene, Path(made.path))
    before, refs = files_of(Path(made.path)), scene.git(scene.repo, "for-each-ref")
    cleaned = await scene.worktrees.clean(made)
    assert (cleaned.removed, cleaned.branch_kept) == (False, True)
    assert words in cleaned.why
    try:
        assert await scene.worktrees.renew(made) is None
    except AgentdError:
        assert do is broken_index
    assert (files_of(Path(made.path)), scene.git(scene.repo, "for-each-ref")) == (before, refs)
    assert scene.listed() == [made.path]
    assert scene.left() == sorted([Path(made.path).name, f"{Path(made.path).name}.json"])
    if held:
        edit(scene, Path(made.path))
        forced = await scene.worktrees.clean(made, force=True)
        assert not forced.removed
        assert words in forced.why


@pytest.mark.parametrize("do", [edit, untracked, staged, merged_but_not_committed, stashed, nested, submodule_edited])
async def test_force_gives_up_what_is_not_committed(scene: Scene, do: Do):
    made = await scene.create()
    do(scene, Path(made.path))
    assert (await scene.worktrees.clean(made, force=True)).removed
    assert scene.left() == scene.listed() == []


@pytest.mark.parametrize("force", [False, True])
async def test_commits_keep_their_branch_and_not_the_directory(scene: Scene, force: bool):
    made = await scene.create()
    head = scene.commit(made.path, "work")
    state = await scene.worktrees.state(made)
    assert (state.own_commits, state.work) == (1, "")
    cleaned = await scene.worktrees.clean(made, force=force)
    assert (cleaned.removed, cleaned.branch_kept) == (True, True)
    assert cleaned.why == f"the branch {made.branch} was kept: 1 commit on no other branch"
    assert scene.git(scene.repo, "rev-parse", made.branch) == head
    assert scene.left() == scene.listed() == []


@pytest.mark.parametrize("to", ["branch", "tag", "remote", "merge"])
async def test_commits_that_are_elsewhere_too_do_not_keep_it(scene: Scene, to: str):
    made = await scene.create()
    head = scene.commit(made.path, "work")
    if to == "remote":
        scene.git(scene.top, "init", "-q", "--bare", "origin")
        scene.git(scene.repo, "remote", "add", "origin", str(scene.top / "origin"))
        scene.git(made.path, "push", "-q", "-u", "origin", "HEAD")
    elif to == "merge":
        scene.git(scene.repo, "merge", "-q", made.branch)
    else:
        scene.git(made.path, to, "elsewhere")
    cleaned = await scene.worktrees.clean(made)
    assert (cleaned.removed, cleaned.why) == (True, "")
    assert made.branch not in scene.branches()
    assert scene.git(scene.repo, "for-each-ref", "--contains", head)


async def test_of_two_with_the_same_commit_the_last_keeps_it(scene: Scene):
    first, second = await scene.create(), await scene.create()
    head = scene.commit(first.path, "work")
    scene.git(second.path, "merge", "-q", first.branch)
    assert not (await scene.worktrees.clean(first)).branch_kept
    assert (await scene.worktrees.clean(second)).branch_kept
    assert scene.git(scene.repo, "rev-parse", second.branch) == head


async def test_what_is_ignored_or_stashed_elsewhere_does_not_keep_it(scene: Scene):
    made = await scene.create()
    (Path(made.path) / "ignored").mkdir()
    (Path(made.path) / "ignored" / "module").write_text("x")
    edit(scene, scene.repo)
    scene.git(scene.repo, "stash")
    assert (await scene.worktrees.clean(made)).removed
    assert scene.nothing_left()


async def test_a_directory_that_is_gone_keeps_its_entry_for_commits_on_no_branch(scene: Scene):
    made = await scene.create()
    detached(scene, Path(made.path))
    head = scene.git(made.path, "rev-parse", "HEAD")
    shutil.rmtree(made.path)
    cleaned = await scene.worktrees.clean(made)
    assert (cleaned.removed, "1 commit on no branch" in cleaned.why) == (False, True)
    assert head in scene.git(scene.repo, "worktree", "list", "--porcelain")


async def test_a_repository_around_ours_is_not_taken_for_it(scene: Scene):
    """Somebody's home may be a repository: without its own `.git`, git would find that one."""
    scene.git(scene.top, "init", "-q")
    made = await scene.create()
    (Path(made.path) / ".git").unlink()
    edit(scene, Path(made.path))
    state = await scene.worktrees.state(made)
    assert (state.names, state.doings) == (("a.txt",), ("a .git that is not the worktree's own",))
    assert await scene.worktrees.renew(made) is None
    assert (Path(made.path) / "a.txt").read_text() == "edited\n"


async def test_read_only_directories_go_too(scene: Scene):
    made = await scene.create()
    cache = Path(made.path) / "ignored" / "cache"
    cache.mkdir(parents=True)
    (cache / "module").write_text("x")
    outside = scene.top / "outside"
    outside.mkdir(mode=0o555)
    (cache / "link").symlink_to(outside)
    cache.chmod(0o555)
    open_up(made.path)  # root may remove them as they are
    assert oct(cache.stat().st_mode)[-3:] == "700"
    cache.chmod(0o555)
    assert (await scene.worktrees.clean(made)).removed
    assert oct(outside.stat().st_mode)[-3:] == "555"


# -- any order of doings: nothing that was ever there, and is nowhere else, is lost


class Life:
    """One worktree in which an agent does this and that, and which is cleaned and renewed now and then."""

    def __init__(self, scene: Scene, made: Worktree) -> None:
        self.scene = scene
        self.made = made
        self.files: dict[str, str] = {}  # not committed
        self.commits: set[str] = set()
        self.count = 0

    @property
    def path(self) -> Path:
        return Path(self.made.path)

    async def write(self) -> None:
        self.count += 1
        name = ("a.txt", "new.txt")[self.count % 2]
        self.files[name] = f"content {self.count}\n"
        (self.path / name).write_text(self.files[name])

    async def stage(self) -> None:
        self.scene.git(self.path, "add", "-A")

    async def commit(self) -> None:
        self.count += 1
        self.commits.add(self.scene.commit(self.path, f"commit {self.count}"))
        self.files.clear()

    async def detach(self) -> None:
        self.scene.git(self.path, "checkout", "-q", "--detach")

    async def branch(self) -> None:
        self.count += 1
        self.scene.git(self.path, "checkout", "-q", "-b", f"agents-{self.count}")

    async def merge(self) -> None:
        head = self.scene.git(self.path, "rev-parse", "HEAD")
        self.scene.git(self.scene.repo, "merge", "-q", "-m", "merged", head, ok=False)

    async def renew(self) -> None:
        await self.scene.worktrees.renew(self.made)

    async def clean(self) -> None:
        cleaned = await self.scene.worktrees.clean(self.made)
        assert cleaned.removed == (not cleaned.why or (cleaned.branch_kept and not self.path.exists()))
        if cleaned.removed:
            assert not self.files
            self.made = await self.scene.create()

    def check(self) -> None:
        """Fail when anything is gone."""
        for name, text in self.files.items():
            assert (self.path / name).read_text() == text
        assert self.commits <= {*self.scene.git(self.path, "rev-list", "--all", "HEAD").split()}


DOINGS = ("write", "stage", "commit", "detach", "branch", "merge", "renew", "clean")


@settings(deadline=None, max_examples=4 if LONG else 1)
@example(["commit", "clean", "detach", "commit", "clean", "renew", "branch", "clean"])
@example(["write", "clean", "stage", "renew", "clean", "commit", "merge", "renew", "commit", "clean"])
@given(st.lists(st.sampled_from(DOINGS), min_size=6, max_size=12))
def test_no_order_of_doings_loses_anything(doings: list[str]):
    async def live(scene: Scene) -> None:
        life = Life(scene, await scene.create())
        for doing in doings:
            await getattr(life, doing)()
            life.check()

    with tempfile.TemporaryDirectory() as directory:
        anyio.run(live, Scene(Path(directory).resolve()))

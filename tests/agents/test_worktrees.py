"""Worktrees of agents: made where they belong, refused with one sentence, renamed, found, and gone without a trace."""

from __future__ import annotations

import os
import shutil
import stat
from dataclasses import replace
from pathlib import Path

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from repositories import Scene

from agentd.agents.git import version_in
from agentd.agents.ids import new_agent_id
from agentd.agents.worktree_record import Record, Slot, clean_name, slot_of
from agentd.agents.worktrees import Worktree
from agentd.errors import AgentdError, AlreadyExists, Conflict, InvalidValue, NotFound, StorageError, VersionMismatch

pytestmark = pytest.mark.anyio


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def fake_git(scene: Scene, script: str) -> str:
    """Return a PATH on which git is a program that goes before the real one."""
    directory = scene.top / "bin"
    directory.mkdir()
    real = shutil.which("git")
    (directory / "git").write_text(f"#!/bin/sh\nreal={real}\n{script}\n")
    (directory / "git").chmod(0o755)
    return f"{directory}:{os.environ['PATH']}"


# -- made


async def test_it_is_made_on_a_fresh_branch_and_goes_without_a_trace(scene: Scene):
    made = await scene.create()
    id_ = Path(made.path).name
    assert Path(made.path).parent.name.startswith("repo-")
    assert Path(made.path).parent.parent == scene.root
    assert (made.branch, made.repo) == (f"agentd/{id_}", str(scene.repo / ".git"))
    assert made.base == scene.git(scene.repo, "rev-parse", "HEAD")
    assert scene.git(made.path, "rev-parse", "--abbrev-ref", "HEAD") == made.branch
    assert (Path(made.path) / "deep" / "b.txt").read_text() == "b\n"
    for directory in (scene.root, Path(made.path).parent):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    cleaned = await scene.worktrees.clean(made)
    assert (cleaned.removed, cleaned.why, cleaned.branch_kept) == (True, "", False)
    assert scene.nothing_left()


async def test_any_directory_of_a_repository_will_do(scene: Scene):
    first = await scene.create()
    bare = scene.top / "odd näme! $(x).git"
    scene.git(scene.top, "clone", "-q", "--bare", str(scene.repo), str(bare))
    linked = scene.top / "linked"
    linked.symlink_to(scene.repo)
    for place in (scene.repo / "deep", scene.repo / ".git", Path(first.path), linked):
        assert (await scene.create(place=place)).repo == first.repo
    made = await scene.create(place=bare)
    assert made.repo == str(bare)
    assert Path(made.path).parent.name.startswith("odd-n-me-x-")
    assert scene.git(made.path, "status", "--porcelain") == ""
    assert (await scene.worktrees.clean(made)).removed
    assert scene.branches(bare) == [f"agentd/{Path(first.path).name}", "main"]  # what the clone had


async def test_a_worktree_of_a_worktree_begins_where_that_one_stands(scene: Scene):
    first = await scene.create()
    head = scene.commit(first.path, "further")
    assert (await scene.create(place=Path(first.path))).base == head


async def test_a_branch_with_a_name_is_made_from_head_or_checked_out(scene: Scene):
    scene.git(scene.repo, "branch", "theirs")
    tip = scene.git(scene.repo, "rev-parse", "theirs")
    scene.commit(scene.repo, "second")
    new, old = await scene.create("feature/x"), await scene.create("theirs")
    assert new.base == scene.git(scene.repo, "rev-parse", "HEAD")
    assert (old.base, scene.git(old.path, "rev-parse", "--abbrev-ref", "HEAD")) == (tip, "theirs")
    assert (await scene.worktrees.clean(new)).branch_kept is False
    cleaned = await scene.worktrees.clean(old)
    assert (cleaned.removed, cleaned.branch_kept) == (True, True)
    assert "theirs was kept: it was not made for the worktree" in cleaned.why
    assert scene.branches() == ["main", "theirs"]


async def test_an_agent_that_comes_again_goes_on_with_its_branch(scene: Scene):
    first = await scene.create()
    id_, head = Path(first.path).name, scene.commit(first.path, "work")
    assert (await scene.worktrees.clean(first)).branch_kept
    again = await scene.worktrees.create(str(scene.repo), id_)
    assert (again.branch, again.base) == (first.branch, head)


async def test_many_at_once_of_one_repository(scene: Scene):
    made: list[Worktree] = []

    async def one() -> None:
        made.append(await scene.create())

    async with anyio.create_task_group() as group:
        for _ in range(6):
            group.start_soon(one)
    assert sorted(scene.listed()) == sorted(worktree.path for worktree in made)
    async with anyio.create_task_group() as group:
        for worktree in made:
            group.start_soon(scene.worktrees.clean, worktree)
    assert scene.nothing_left()


@pytest.mark.parametrize("cone", ["--cone", "--no-cone"])
async def test_a_sparse_checkout_is_taken_over(scene: Scene, cone: str):
    (scene.repo / "other").mkdir()
    (scene.repo / "other" / "c.txt").write_text("c\n")
    scene.commit(scene.repo, "more")
    scene.git(scene.repo, "sparse-checkout", "set", cone, "deep")
    made = await scene.create()
    assert (Path(made.path) / "deep" / "b.txt").exists()
    assert not (Path(made.path) / "other").exists()
    assert (await scene.worktrees.state(made)).work == ""
    (Path(made.path) / "other").mkdir()
    (Path(made.path) / "other" / "c.txt").write_text("changed beyond the patterns\n")
    assert (await scene.worktrees.state(made)).names == ("other/c.txt",)


async def test_submodules_are_told_and_not_checked_out(scene: Scene):
    scene.new("lib")
    scene.git(
        scene.repo, "-c", "protocol.file.allow=always", "submodule", "-q", "add", str(scene.top / "lib"), "vendor/lib"
    )
    scene.git(scene.repo, "config", "submodule.recurse", "true")
    scene.commit(scene.repo, "with a submodule")
    made = await scene.create()
    assert await scene.worktrees.submodules(made) == ["vendor/lib"]
    assert os.listdir(Path(made.path) / "vendor" / "lib") == []
    assert (await scene.worktrees.clean(made)).removed
    assert scene.nothing_left()


# -- nothing of the repository's runs


async def test_neither_hooks_nor_fsmonitor_of_the_repository_run(scene: Scene):
    sentinel = scene.top / "ran"
    ours = scene.repo / ".git" / "hooks"
    ours.mkdir(exist_ok=True)
    hooks = ("post-checkout", "reference-transaction", "post-index-change", "fsmonitor")
    for name in hooks:
        (ours / name).write_text(f"#!/bin/sh\necho {name} >>'{sentinel}'\n")
        (ours / name).chmod(0o755)
    scene.git(scene.repo, "config", "core.fsmonitor", str(ours / "fsmonitor"))
    made = await scene.create()
    (Path(made.path) / "new").write_text("x")
    await scene.worktrees.state(made)
    (Path(made.path) / "new").unlink()
    made = await scene.worktrees.rename_branch(made, "named")
    assert await scene.worktrees.renew(made)
    await scene.worktrees.found()
    assert (await scene.worktrees.clean(made)).removed
    assert not sentinel.exists()
    # The control: they do run with plain git.
    scene.git(scene.repo, "worktree", "add", "-q", str(scene.top / "plain"))
    scene.git(scene.top / "plain", "status")
    assert {*sentinel.read_text().split()} == {*hooks}


# -- refused


BAD = [
    ("gone", None, NotFound, "gone is not a directory, or gone"),
    ("file", None, NotFound, "is not a directory"),
    ("plain", None, InvalidValue, "not a git repository"),
    ("empty", None, InvalidValue, "has no commits yet"),
    ("empty-bare", None, InvalidValue, "has no commits yet"),
    ("repo", "main", AlreadyExists, "main is checked out at"),
    ("repo", "main/x", AlreadyExists, "'refs/heads/main' exists"),
    ("repo", "-f", InvalidValue, "'-f' is not a name for a branch"),
    ("repo", "--detach", InvalidValue, "is not a name for a branch"),
    ("repo", "", InvalidValue, "is not a name for a branch"),
    ("repo", "a..b", InvalidValue, "is not a name for a branch"),
    ("repo", "a b\n", InvalidValue, "is not a name for a branch"),
    ("repo", "HEAD", InvalidValue, "is not a name for a branch"),
    ("repo", "@{-1}", InvalidValue, "is not a name for a branch"),
    ("repo", "x\0y", InvalidValue, "NUL"),
    ("repo", "x" * 300, AgentdError, "x"),
]


@pytest.fixture(scope="module")
def crowded(tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """Give a repository beside places that are none."""
    scene = Scene(tmp_path_factory.mktemp("crowded"))
    (scene.top / "file").write_text("x")
    for name in ("plain", "empty"):
        (scene.top / name).mkdir()
    scene.git(scene.top / "empty", "init", "-q")
    scene.git(scene.top, "init", "-q", "--bare", "empty-bare")
    scene.git(scene.repo, "checkout", "-q", "-b", "before")
    scene.git(scene.repo, "checkout", "-q", "main")  # so that @{-1} means something
    return scene


@pytest.mark.parametrize(("place", "branch", "kind", "words"), BAD)
async def test_bad_input_is_one_sentence_and_leaves_nothing(
    crowded: Scene, place: str, branch: str | None, kind: type[AgentdError], words: str
):
    with pytest.raises(kind, match=words) as caught:
        await crowded.create(branch, crowded.top / place)
    assert caught.value.hint
    assert crowded.nothing_left()
    assert crowded.branches() == ["before", "main"]


async def test_a_relative_place_and_an_id_that_is_none_are_refused(scene: Scene):
    with pytest.raises(InvalidValue, match="not an absolute path"):
        await scene.worktrees.create("repo", new_agent_id())
    for id_ in ("../../x", "", "ann", "1abc", "1abcdefgh/", "-bcdefghjk"):
        with pytest.raises(InvalidValue, match="not an agent's id"):
            await scene.worktrees.create(str(scene.repo), id_)
    assert scene.nothing_left()


async def test_a_second_one_for_the_same_agent_is_refused_and_the_first_kept(scene: Scene):
    first = await scene.create()
    with pytest.raises(AlreadyExists, match="has a worktree at"):
        await scene.worktrees.create(str(scene.repo), Path(first.path).name)
    assert scene.listed() == [first.path]


async def test_a_users_branch_in_the_way_of_ours_is_named(scene: Scene):
    scene.git(scene.repo, "branch", "agentd")
    with pytest.raises(AlreadyExists, match="'refs/heads/agentd' exists"):
        await scene.create()
    assert scene.left() == scene.listed() == []


async def test_no_git_and_an_old_git_are_named(scene: Scene):
    (scene.top / "nothing").mkdir()
    with pytest.raises(NotFound, match="git is not installed"):
        await scene.again(PATH=str(scene.top / "nothing")).create(str(scene.repo), new_agent_id())
    old = scene.again(PATH=fake_git(scene, 'echo "git version 2.30.2"'))
    with pytest.raises(VersionMismatch, match=r"git 2\.30 is too old"):
        await old.create(str(scene.repo), new_agent_id())
    assert scene.nothing_left()


async def test_a_full_disk_is_named_and_nothing_left(scene: Scene):
    """The disk's own words come from /dev/full, in the middle of the checkout."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    (scene.repo / ".gitattributes").write_text("b.txt filter=full\n")
    scene.commit(scene.repo, "filtered")
    scene.git(scene.repo, "config", "filter.full.smudge", "cat >/dev/full")
    scene.git(scene.repo, "config", "filter.full.required", "true")
    with pytest.raises(StorageError, match="worktree add") as caught:
        await scene.create()
    assert caught.value.hint == "free disk space and do it again"
    assert scene.nothing_left()


async def test_a_disk_that_is_full_without_saying_so_is_named_and_nothing_left(scene: Scene):
    """What git printed on a small file system that was filled by the checkout: no word of the room."""
    words = """echo "error: unable to write file deep/b.txt" >&2
        echo "fatal: Could not reset index file to revision 'HEAD'." >&2"""
    script = (
        f"""case "$*" in *"worktree add"*) "$real" "$@" 2>/dev/null; {words}; exit 128;; esac; exec "$real" "$@" """
    )
    with pytest.raises(StorageError, match="unable to write file"):
        await scene.again(PATH=fake_git(scene, script)).create(str(scene.repo), new_agent_id())
    assert scene.nothing_left()


def test_a_record_that_cannot_be_written_leaves_none_half_written(tmp_path: Path):
    slot = Slot(str(tmp_path), new_agent_id())
    Path(slot.record).mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        slot.write(Record("r", "b", "c"))
    assert [path.name for path in tmp_path.iterdir()] == [f"{slot.id}.json"]


async def test_a_link_in_place_of_a_directory_of_ours_is_refused_and_its_target_untouched(scene: Scene):
    target = scene.top / "target"
    target.mkdir(mode=0o700)
    (target / "precious").write_text("mine")
    made = await scene.create()
    other = slot_of(str(scene.root), made.repo, new_agent_id())
    os.symlink(target, other.path)
    with pytest.raises(InvalidValue, match="symlink"):
        await scene.worktrees.create(str(scene.repo), other.id)
    shutil.rmtree(made.path)
    os.symlink(target, made.path)
    for use in (scene.worktrees.clean, scene.worktrees.state, scene.worktrees.renew, scene.worktrees.submodules):
        with pytest.raises(InvalidValue, match="symlink"):
            await use(made)
    for directory in (Path(made.path).parent, scene.root):
        directory.rename(scene.top / f"moved-{directory.name}")
        directory.symlink_to(target)
        with pytest.raises(InvalidValue, match="symlink"):
            await scene.create()
    assert [path.name for path in target.iterdir()] == ["precious"]


async def test_nothing_but_our_own_worktrees_is_cleaned(scene: Scene):
    made, root = await scene.create(), scene.root
    others = ("/", "/etc", f"{root}", f"{root}/x", f"{root}/x/y", f"{root}/x/1aaaaaaaaa/..", f"{root}/../1aaaaaaaaa")
    for path in others:
        with pytest.raises(InvalidValue, match="no worktree of agentd"):
            await scene.worktrees.clean(replace(made, path=path), force=True)


# -- renamed


async def test_a_branch_gets_a_name_and_is_still_ours(scene: Scene):
    made = await scene.worktrees.rename_branch(await scene.create(), "fix/one")
    assert scene.git(made.path, "rev-parse", "--abbrev-ref", "HEAD") == made.branch == "fix/one"
    assert await scene.worktrees.found() == [made]
    assert (await scene.worktrees.clean(made)).removed
    assert scene.branches() == ["main"]


async def test_a_name_that_is_taken_bad_or_not_ours_to_change_is_refused(scene: Scene):
    scene.git(scene.repo, "branch", "theirs")
    made = await scene.create()
    for name, kind in (("main", AlreadyExists), ("-x", InvalidValue), ("main/x", AlreadyExists)):
        with pytest.raises(kind):
            await scene.worktrees.rename_branch(made, name)
    with pytest.raises(Conflict, match="theirs was not made for this worktree"):
        await scene.worktrees.rename_branch(await scene.create("theirs"), "mine")
    assert scene.branches() == [made.branch, "main", "theirs"]
    assert made in await scene.worktrees.found()


# -- renewed


async def test_a_slot_without_work_is_set_to_head_and_keeps_what_is_ignored(scene: Scene):
    made = await scene.create()
    (Path(made.path) / "ignored").mkdir()
    (Path(made.path) / "ignored" / "module").write_text("installed once")
    scene.git(made.path, "checkout", "-q", "--detach")
    (scene.repo / "a.txt").write_text("new\n")
    head = scene.commit(scene.repo, "second")
    renewed = await scene.worktrees.renew(made)
    assert renewed == replace(made, base=head)
    assert (Path(made.path) / "a.txt").read_text() == "new\n"
    assert scene.git(made.path, "rev-parse", "--abbrev-ref", "HEAD") == made.branch
    assert (Path(made.path) / "ignored" / "module").exists()
    assert await scene.worktrees.found() == [renewed]


async def test_a_slot_with_work_and_a_branch_that_is_not_ours_are_not_renewed(scene: Scene):
    scene.git(scene.repo, "branch", "theirs")
    theirs, dirty, ahead = await scene.create("theirs"), await scene.create(), await scene.create()
    moved, back = await scene.create(), await scene.create()
    scene.commit(back.path, "work that was left")
    scene.git(back.path, "checkout", "-q", "-b", "from-the-start", back.base)
    scene.git(moved.path, "checkout", "-q", "-b", "by-the-agent")
    scene.commit(moved.path, "other work")  # the same one would be the same commit
    (Path(dirty.path) / "a.txt").write_text("work\n")
    head = scene.commit(ahead.path, "work")
    scene.commit(scene.repo, "second")
    assert [await scene.worktrees.renew(one) for one in (theirs, dirty, ahead, moved, back)] == [None] * 5
    assert (Path(dirty.path) / "a.txt").read_text() == "work\n"
    assert scene.git(ahead.path, "rev-parse", "HEAD") == head
    assert scene.git(scene.repo, "rev-parse", "theirs") == theirs.base


# -- found


async def test_a_new_daemon_finds_them_with_or_without_their_records(scene: Scene):
    assert await scene.again().found() == []
    made = sorted([await scene.create(), await scene.create()], key=lambda one: one.path)
    assert await scene.again().found() == made
    scene.git(made[0].path, "checkout", "-q", "-b", "by-the-agent")
    Path(f"{made[1].path}.json").write_text("{")
    found = await scene.again().found()
    assert found == [replace(made[0], branch="by-the-agent"), made[1]]
    cleaned = [await scene.worktrees.clean(one) for one in found]
    assert "by-the-agent was kept" in cleaned[0].why
    assert f"{made[1].branch} was kept" in cleaned[1].why  # without its record nobody knows whose it is
    assert scene.branches() == sorted([made[1].branch, "by-the-agent", "main"])
    assert scene.left() == scene.listed() == []


async def test_a_directory_that_is_gone_is_cleaned_and_no_other_entry_with_it(scene: Scene):
    made = await scene.create()
    scene.git(scene.repo, "worktree", "add", "-q", str(scene.top / "theirs"))
    shutil.rmtree(scene.top / "theirs")
    shutil.rmtree(made.path)
    assert (await scene.worktrees.state(made)).gone
    assert (await scene.worktrees.clean(made)).removed
    assert scene.listed() == [str(scene.top / "theirs")]
    assert scene.left() == []


async def test_a_repository_that_is_gone_leaves_the_files_until_forced(scene: Scene):
    made, bare = await scene.create(), await scene.create()
    for path in Path(bare.path).iterdir():
        if path.name != ".git":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.rmtree(scene.repo)
    assert [one.path for one in await scene.again().found()] == sorted([made.path, bare.path])
    cleaned = await scene.worktrees.clean(made)
    assert not cleaned.removed
    assert "is in it was kept" in cleaned.why
    assert (Path(made.path) / "a.txt").exists()
    with pytest.raises(NotFound, match="does not know it"):
        await scene.worktrees.state(made)
    assert (await scene.worktrees.clean(bare)).removed
    assert (await scene.worktrees.clean(made, force=True)).removed
    assert scene.left() == []


# -- words


@settings(deadline=None, max_examples=200)
@given(st.text(max_size=60))
def test_no_repositorys_name_becomes_more_than_a_plain_name(text: str):
    name = clean_name(f"/top/{text}/.git")
    assert name.isascii()
    assert name not in ("", ".", "..")
    assert not {*name} & {*"/\0 \n"}
    assert not name.startswith(("-", "."))
    assert len(name) <= 40


@settings(deadline=None)
@given(st.integers(0, 999), st.integers(0, 999), st.text(max_size=20), st.text(max_size=40))
def test_versions_of_git(major: int, minor: int, more: str, other: str):
    assert version_in(f"git version {major}.{minor}.{more}") == (major, minor)
    version_in(other)
    assert version_in("not git") == (0, 0)

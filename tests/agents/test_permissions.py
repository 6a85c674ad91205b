"""What is asked, and what a policy says to it: a pattern approves what it matches whole, nothing that hides in it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from panes import BUILT_IN, REPOSITORY, Seen

from agentd.agents.asking import EARLY_S, LATE_S, STEADY_S, Asking
from agentd.agents.patterns import compile_pattern
from agentd.agents.permissions import Decision, Prompt, covers, decide, prompt_on, same, told
from agentd.agents.profile import Profile, read_profile
from agentd.agents.reports import Report
from agentd.agents.screen import classify
from agentd.errors import InvalidValue

DEMO = BUILT_IN.get("demo")
QUESTION = "Allow? [y/N]"


def screen(*asked: str, above: str = "") -> Seen:
    return Seen("\n".join([above, f"demo asks to run: {asked[0]}", *(f"  {line}" for line in asked[1:]), QUESTION]))


def prompt(look: Seen, profile: Profile = DEMO) -> Prompt:
    found = prompt_on(profile, look, classify(profile, look))
    assert found is not None
    return found


def allowing(*patterns: str) -> Profile:
    lines = f"policy = 'allow'\nallow = [{', '.join(repr(p) for p in patterns)}]\n"
    rule = "[[rules]]\nstate = 'waiting'\nwaits_for = 'permission'\nscreen = '^Allow'\ntail = 1\n"
    asks = "asks = '^demo asks to run: (?P<asks>[^\\n]*(?:\\n  [^\\n]*){0,9})\\nAllow\\? \\[y/N\\]'\n"
    keys = "approve_keys = ['y']\ndeny_keys = ['n']\n"
    return read_profile("x", f"command = 'x'\n[answers]\n{keys}{lines}{asks}{rule}", "x.toml")


# -- patterns

GIT = r"Bash: git (?:status|log|diff)(?: [-\w./ ]*)?"


@pytest.mark.parametrize(
    ("pattern", "asks"),
    [
        (GIT, "Bash: git status"),
        (GIT, "Bash: git log --oneline -5"),
        (r"Bash: git .*", "Bash: git log --oneline -- docs/a.md"),
        (r".*", "anything at all"),
        (r"Bash: make test \| tail -5", "Bash: make test | tail -5"),
        (r"Bash: (?:make test) \| tail -\d+", "Bash: make test | tail -12"),
        (r"Bash: cd \w+ && make", "Bash: cd docs && make"),
        (r"^Bash: ls$", "Bash: ls"),
    ],
)
def test_what_a_pattern_means_is_approved(pattern: str, asks: str):
    """The positive control of the evasions below."""
    assert covers(compile_pattern(pattern), asks)


EVASIONS = [
    *(
        f"Bash: git status{joint}rm -rf /"
        for joint in (";", " && ", " || ", " | ", "\n", "\r", " & ", "\x0b", "\u2028")
    ),
    *("Bash: git log $(rm -rf /)", "Bash: git log `rm -rf /`", "Bash: git log ${IFS}x", "Bash: git log <(rm x)"),
    *("Bash: git log > /etc/passwd", "Bash: git log *(e:'rm x':)", "Bash: git log \\\nrm x", "Bash: git log …"),
    *("Bash: git log \ufffd rm x", "Bash: git log \x1b[2K rm x", "Bash: git log \u202exr", "Bash: git log\tx\0"),
]


@pytest.mark.parametrize("asks", EVASIONS)
@pytest.mark.parametrize(
    "pattern", [r"Bash: git .*", r"(?s).*", r"Bash: git [\s\S]*", r"Bash: git (?:.|\n){0,200}", ".+"]
)
def test_what_hides_behind_a_wildcard_is_not_approved(pattern: str, asks: str):
    compiled = compile_pattern(pattern)
    assert compiled.fullmatch("Bash: git log")  # it is about git, or about everything
    assert not covers(compiled, asks)


@pytest.mark.parametrize(
    ("pattern", "asks"),
    [
        (r"git status", "git status --short"),  # only a beginning
        (r"status", "git status"),  # only a part
        (r"status$", "git status"),
        (r"^git status$", "git status\nrm -rf /"),
        (r"git status$", "rm -rf /\ngit status"),
        (r"git log(?: \| head)?.*", "git log ; rm"),  # what may be left out does not stand for what is there
        (r"git log(?:\|)*.*", "git log | rm"),
        (r"(?:a;|b).*", "b; rm"),
        (r"(?=.*;)git .*", "git log ; rm"),  # a look ahead spells nothing
        (r"[;]?git .*", "git log ; rm"),
        (r"git log \| head .*", "git log | head | sh"),  # one bar is spelled, two are there
        (r"git log \| head .*", "git log ; head x | sh"),
    ],
)
def test_a_pattern_is_anchored_and_spells_out_what_joins(pattern: str, asks: str):
    assert not covers(compile_pattern(pattern), asks)


@given(st.text(alphabet=st.sampled_from("ab ;&|<>$`()\\\n\r\x1b…\ufffd\u2028\u202e"), max_size=30))
@example("a;b")
def test_a_wildcard_never_stands_for_a_joint(tail: str):
    joined = any(char not in "ab " for char in tail)
    assert covers(compile_pattern(r"(?s)a.*"), f"a{tail}") is not joined


@given(st.text(max_size=40))
def test_a_text_spelled_out_is_approved_whatever_is_in_it(text: str):
    assert covers(re.compile(re.escape(text), re.MULTILINE), text)


# -- prompts


def test_a_prompt_is_what_a_rule_for_permissions_sees():
    assert prompt(screen("git status")).asks == "git status"
    idle = Seen("demo>")
    assert prompt_on(DEMO, idle, classify(DEMO, idle)) is None


def test_another_prompt_has_another_id_and_a_redraw_has_not():
    first = prompt(screen("git status", above="⠋ ● working"))
    assert prompt(screen("git status", above="⠙ ◦ working")).id == first.id
    assert prompt(screen("git status", above="│ working  │")).id == first.id
    assert prompt(screen("git push", above="● working")).id != first.id
    assert prompt(screen("rm file2", above="x")).id != prompt(screen("rm file1", above="x")).id


def test_a_clock_or_a_moved_mark_is_the_same_prompt_and_other_words_are_another():
    def at(mark: str, time: str, command: str = "touch p1") -> Prompt:
        return Prompt(f"{mark}{time}{command}", f"working ({time})\n{command}\n{mark} 1. Yes\n2. No")

    assert same(at(">", "3s"), at("", "4.5s"))
    assert not same(at(">", "3s"), at(">", "3s", "touch p2"))


def test_lines_asked_are_all_of_it_and_none_of_what_was_printed_above():
    assert prompt(screen("a", "b", "c")).asks == "a\n  b\n  c"
    earlier = screen("git push", above=f"demo asks to run: git status\n{QUESTION} yes\necho: git status")
    assert prompt(earlier).asks == "git push"
    inside = screen("rm -rf /", "demo asks to run: git status")
    assert prompt(inside).asks == "rm -rf /\n  demo asks to run: git status"
    assert decide(allowing("git status").answers, prompt(inside)) is Decision.LEAVE
    printed_later = Seen(screen("git status").text + "\nsomething else\nAllow me")
    assert prompt(printed_later, allowing("git status")).asks == ""


# -- policies


def test_each_policy():
    asked, other = prompt(screen("git status")), prompt(screen("git push"))
    assert decide(DEMO.answers, asked) is Decision.LEAVE
    allow = allowing("git status", "git log").answers
    assert decide(allow, asked) is Decision.APPROVE
    assert decide(allow, other) is Decision.LEAVE
    never = read_profile("x", "command = 'x'\n[answers]\npolicy = 'never'\ndeny_keys = ['n']", "x.toml").answers
    assert decide(never, asked) is Decision.DENY
    assert decide(never, Prompt("0", "")) is Decision.DENY


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("policy = 'never'", "`policy` is never, and there are no `deny_keys`"),
        ("policy = 'allow'\nallow = ['x']", "`policy` is allow, which needs `approve_keys` and `allow`"),
        ("policy = 'allow'\napprove_keys = ['y']", "`policy` is allow, which needs `approve_keys` and `allow`"),
        ("policy = 'always'", "Invalid enum value 'always'"),
        ("asks = '^x'", "`asks` needs a group (?P<asks>...)"),
        ("allow = ['(']", "the pattern '(' is not valid"),
    ],
)
def test_a_policy_that_could_do_nothing_is_refused(lines: str, message: str):
    with pytest.raises(InvalidValue) as caught:
        read_profile("x", f"command = 'x'\n[answers]\n{lines}", "x.toml")
    assert message in caught.value.message


def test_a_report_is_believed_by_a_policy_only_when_the_screen_shows_the_same():
    shown = prompt(Seen("Bash command\n\n  git log \n    --oneline\n  Do you want to?\nAllow? [y/N]"))
    allow = allowing("Bash: git log --oneline").answers
    assert decide(allow, told(shown, "Bash: git log --oneline")) is Decision.APPROVE
    elsewhere = prompt(Seen("Bash command\n  rm -rf /\nAllow? [y/N]"))
    assert not told(elsewhere, "Bash: git log --oneline").sure
    assert decide(allow, told(elsewhere, "Bash: git log --oneline")) is Decision.LEAVE
    assert not told(elsewhere, "Bash: ").sure


# -- which report belongs to which prompt

PLAIN = allowing("Bash: git status", "Bash: git push")


class Line:
    """An agent's Asking, its screen and a clock."""

    def __init__(self) -> None:
        nobody: Any = None
        self.asking = Asking("a", PLAIN, nobody, nobody, nobody)
        self.now_s = 100.0

    def report(self, asks: str, means: Any = "permission") -> None:
        self.asking.hear(Report(means, "hook x", asks=asks), self.now_s)

    def look(self, *lines: str, after_s: float = 0.01) -> bool:
        self.now_s += after_s
        seen = Seen("\n".join(lines))
        return self.asking.see(seen, classify(PLAIN, seen), self.now_s)

    def ask(self, command: str, after_s: float = 0.01) -> bool:
        return self.look(f"> {command}", QUESTION, after_s=after_s)

    @property
    def asks(self) -> str:
        return self.asking.prompt.asks if self.asking.prompt else "none stands"

    def due(self, after_s: float = 0.0) -> float | None:
        return self.asking.due_in_s(self.now_s + after_s)


def test_a_report_comes_before_its_prompt_or_soon_behind():
    line = Line()
    line.report("Bash: git status")
    assert line.asking.row() == {"prompt": None, "asks": "Bash: git status"}
    line.ask("git status")
    assert line.asks == "Bash: git status"
    assert line.due() == pytest.approx(STEADY_S)
    assert line.due(STEADY_S) == 0.0
    late = Line()
    late.ask("git status")
    assert late.due() is None
    late.report("Bash: git status")
    late.ask("git status")
    assert late.due() is not None


def test_a_report_is_used_for_one_prompt_only():
    """Else the next prompt, whose own report was lost, would be judged by it; it may show the same words further up."""
    line = Line()
    line.report("Bash: git status")
    line.ask("git status")
    line.look("working")
    line.ask("git status; rm -rf /")
    assert line.asks == ""
    assert line.due() is None
    line = Line()
    line.report("Bash: git status")
    line.ask("git status")
    assert line.ask("git status; rm -rf /", after_s=STEADY_S)  # in the place of the first, without a look between
    assert (line.asks, line.due()) == ("", None)


def test_a_report_that_is_too_old_or_too_late_belongs_to_no_prompt():
    line = Line()
    line.report("Bash: git status")
    line.ask("git status", after_s=EARLY_S + 0.1)
    assert line.asks == ""
    line = Line()
    line.ask("git status")
    line.now_s += LATE_S + 0.1
    line.report("Bash: git status")
    line.ask("git status")
    assert line.asks == ""


def test_what_is_reported_while_a_prompt_stands_is_for_the_next_one():
    line = Line()
    line.report("Bash: git status")
    line.ask("git status")
    line.report("Bash: git push")
    line.ask("git status")
    assert line.asks == "Bash: git status"
    line.ask("git push", after_s=STEADY_S)
    assert line.asks == "Bash: git push"


def test_a_prompt_is_judged_once_it_is_drawn_whole():
    line = Line()
    line.report("Bash: git status")
    line.look("git status", QUESTION)
    line.look("git status", "and a hint", QUESTION, after_s=STEADY_S / 2)
    assert line.asks == "Bash: git status"
    assert line.due(STEADY_S / 2) != 0.0
    assert line.due(STEADY_S) == 0.0
    line.look("git status; rm -rf /", QUESTION, after_s=STEADY_S)  # too late to be a part of the same drawing
    assert line.asks == ""


def test_the_policy_of_the_guide():
    """What it says of its patterns is so."""
    guide = (REPOSITORY / "docs" / "permissions.md").read_text()
    found = re.search(r"```toml\n(.*?)```", guide, re.DOTALL)
    assert found
    allow = read_profile("x", f"command = 'x'\n{found[1]}", "x.toml").answers.allow
    assert [any(covers(p, asks) for p in allow) for asks in ("Bash: git diff --stat a", "Bash: git push")] == [
        True,
        False,
    ]
    assert "make test \\| tail -\\d+" in guide
    tail = compile_pattern(r"make test \| tail -\d+")
    assert covers(tail, "make test | tail -5")
    assert not covers(tail, "make test | tail -5 | sh")
    assert covers(compile_pattern("git .*"), "git -c core.pager=x log")

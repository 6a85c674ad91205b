"""Errors: one wire code each, the same error on both sides."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentd import errors
from agentd.errors import WIRE_CODES, AgentdError, InternalError, StorageFull, from_wire

ALL = [cls for cls in vars(errors).values() if isinstance(cls, type) and issubclass(cls, AgentdError)]
OPTIONAL = st.none() | st.text()


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
def test_every_error_has_a_code_an_exit_code_and_one_sentence(cls: type[AgentdError]) -> None:
    assert cls.code
    assert errors.EXIT_FAILED <= cls.exit_code <= errors.EXIT_NOT_ALLOWED
    assert cls.__doc__ is not None
    assert cls.__doc__.startswith("Raised when ")


def test_every_code_names_one_class() -> None:
    named = [cls for cls in ALL if cls is not AgentdError]
    assert len({cls.code for cls in named}) == len(named)
    assert set(WIRE_CODES.values()) == set(named)
    assert WIRE_CODES["internal"] is InternalError
    assert WIRE_CODES["storage_full"] is StorageFull


@given(st.sampled_from(sorted(WIRE_CODES)), st.text(), OPTIONAL, OPTIONAL, st.none() | st.integers(0, 2**31))
def test_an_error_arrives_as_it_was_sent(
    code: str, message: str, hint: str | None, field: str | None, retry_after_ms: int | None
) -> None:
    sent = WIRE_CODES[code](message, hint=hint, field=field, retry_after_ms=retry_after_ms)
    got = from_wire(sent.code, sent.message, sent.data())
    assert type(got) is type(sent)
    assert vars(got) == vars(sent)
    assert sent.message == message if message.isprintable() else sent.message.isprintable()
    assert got.as_json() == {"code": code, "message": sent.message, "hint": hint, "retryable": sent.retryable}


def test_a_message_that_quotes_odd_text_stays_one_line() -> None:
    assert str(InternalError("no `é\n\x1b]0;x\x07\ud800`")) == "no `é\\n\\x1b]0;x\\x07\\ud800`"


def test_a_code_of_a_newer_daemon_is_not_lost() -> None:
    error = from_wire("moon_phase", "wrong moon", {"hint": "wait", "colour": 3})
    assert type(error) is InternalError
    assert (error.message, error.hint, error.field) == ("moon_phase: wrong moon", "wait", None)
    assert from_wire("busy", "later").retryable


def test_what_is_not_set_is_not_on_the_wire() -> None:
    assert errors.Busy("full").data() == {"retryable": True}
    assert errors.Busy("full", retry_after_ms=0).data() == {"retryable": True, "retry_after_ms": 0}

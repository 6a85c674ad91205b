"""The methods of the clients are those of the table, for type checkers (see typed_use.py), editors and people."""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest
import typed_client
from serving import serving_in_thread

from agentd import typed
from agentd.aio import AsyncClient
from agentd.client import Client, connect
from agentd.wire.calls import CALLS


def test_the_module_is_what_the_table_says():
    assert typed_client.FILE.read_text() == typed_client.text(), "the table has changed: run `./dev typed`"


def test_every_call_is_a_method_with_a_sentence_and_its_parameters():
    assert set(typed.METHODS.values()) == set(CALLS)
    for name, method in typed.METHODS.items():
        for cls in (typed.BlockingCalls, typed.AsyncCalls):
            declared = getattr(cls, name)
            assert declared.__doc__.startswith(CALLS[method].doc)
            kept = {key.rstrip("_") for key in inspect.signature(declared).parameters} - {"self", "timeout_s", "credit"}
            assert kept == set(CALLS[method].params.__struct_encode_fields__) - {"timeout_s"}


def test_events_has_one_signature():
    blocking, waiting = inspect.signature(Client.events), inspect.signature(AsyncClient.events)
    assert blocking == waiting
    assert list(blocking.parameters) == ["self", "follow", "since", "types", "targets", "patience_s"]


def test_a_method_tells_what_it_does_and_makes_the_call(tmp_path: Path):
    with serving_in_thread(str(tmp_path / "s")) as served, connect(served.path, environ={}) as client:
        assert inspect.signature(client.agents_get).parameters["target"].annotation == "str"
        assert inspect.getdoc(client.agents_get) == "Return everything about one agent.\n\nOne agent."
        asked = []
        served.answers.messages_search = lambda params: asked.append(params.in_) or {}
        client.messages_search(query="x", in_="transcripts")  # `in` is no name in Python
        assert asked == ["transcripts"]
        for name in ("worktrees_list", "projects_get", "loops_list", "notify_test", "schema"):
            assert callable(getattr(client, name))
        with pytest.raises(AttributeError, match="noun_verb"):
            client.agents_dance  # noqa: B018

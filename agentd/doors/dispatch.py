"""From a method's name and raw parameters to the answer: the table, the caller's right, the types, then the call."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import AsyncGeneratorType, CoroutineType
from typing import Any

import anyio.lowlevel
import msgspec

from agentd.agents.waiters import Wait
from agentd.doors import mcp
from agentd.doors.access import AccessLog
from agentd.doors.most_times import BATCH
from agentd.doors.rates import Rates
from agentd.doors.refused_values import invalid
from agentd.errors import AgentdError, DeadlineExceeded, Denied, InternalError, InvalidValue, UnknownMethod
from agentd.records import Caller, Role
from agentd.wire.calls import CALLS, RECORDED, Params, rows_for

DEFAULT_CREDIT = 256
_BATCH_MAX_CALLS = 1024
_CALLS_PER_TURN = 64


@dataclass(frozen=True, slots=True)
class CallContext:
    """What a call may know beside its parameters."""

    deadline_s: float | None = None  # time the client gives the call from now on; the door enforces it, or less
    peer_pid: int = 0


Answer = Callable[[Caller, str, Params, CallContext], Any]
OnFault = Callable[[str, Exception], None]  # method, what was raised: a fault of ours, to be logged
_OPERATOR = Role.OPERATOR
WAITING = (CoroutineType, AsyncGeneratorType)  # kinds of values that are not the answer yet


def read_options(options: Any, params: Any, peer_pid: int) -> tuple[CallContext, Any, int]:
    """Return context, parameters and credit from the options of a call; a key among them is a parameter."""
    if not isinstance(options, dict):
        raise InvalidValue("a call's options are a map", field="options")
    deadline_ms, credit = options.get("deadline_ms"), options.get("credit", DEFAULT_CREDIT)
    if not isinstance(deadline_ms, int | float | None) or not isinstance(credit, int) or credit < 0:
        raise InvalidValue("deadline_ms and credit are numbers, not negative", field="options")
    if deadline_ms is not None and not deadline_ms > 0:
        raise DeadlineExceeded("the call's deadline was over before it began", hint="allow more time")
    if options.get("key") is not None and isinstance(params, dict):
        params = {"key": options["key"], **params}
    return CallContext(None if deadline_ms is None else deadline_ms / 1000, peer_pid), params, credit


class Dispatch:
    """Makes calls through the table; `answer` gets parameters that are already of the call's type.

    `answer` returns the value, a coroutine that returns it, or (calls that stream) an async generator.
    """

    def __init__(
        self, answer: Answer, on_fault: OnFault, rates: Rates, access: AccessLog | None, *, agents_start: bool
    ) -> None:
        self._answer = answer
        self._on_fault = on_fault
        self._rates = rates
        self._limits_operator = rates.limits_operator
        self._access = access
        self._recorded = RECORDED if access else frozenset()
        self._agents_start = agents_start
        self._operators = rows_for(_OPERATOR, agents_start=agents_start)
        self._agents = rows_for(Role.AGENT, agents_start=agents_start)

    def call(self, caller: Caller, method: str, params: Any, context: CallContext) -> Any:
        """Return what `answer` returns; raises UnknownMethod, RateLimit, Denied or InvalidValue before it is asked."""
        is_operator = caller.role is _OPERATOR
        if not is_operator or self._limits_operator:
            self._rates.spend(caller)
        row = (self._operators if is_operator else self._agents).get(method)
        if row is None:
            return self._own(caller, method, params, context)
        if type(params) is not row.params:
            try:
                params = msgspec.convert(params, row.params)
            except msgspec.ValidationError as error:
                raise invalid(method, row.params, params, error) from None
        if method in self._recorded:
            return self._made_on_record(caller, method, params, context)
        return self._answer(caller, method, params, context)

    def as_error(self, caller: Caller | None, method: str, error: Exception) -> AgentdError:
        """Return the error to tell the caller; what is no error of ours is handed to the log first."""
        if isinstance(error, AgentdError):
            if caller and self._access:
                self._access.refused(caller, method, error)
            return error
        self._on_fault(method, error)
        what = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return InternalError(f"agentd failed: {what}; see the daemon's log", hint="agentd itself goes on")

    def _own(self, caller: Caller, method: str, params: Any, context: CallContext) -> Any:
        if method in CALLS:
            raise Denied(f"an agent may not call {method}", hint="ask the operator to do it")
        if method == BATCH:
            return self._batch(caller, _batch_items(params), context)
        if method in mcp.METHODS:
            return mcp.answer(
                lambda name, given: self._made_by_tool(caller, name, given, context),
                caller,
                method,
                params,
                agents_start=self._agents_start,
            )
        raise UnknownMethod(f"there is no call `{method[:100]}`", hint="`agentd schema` lists every call")

    async def _made_on_record(self, caller: Caller, method: str, params: Params, context: CallContext) -> Any:
        """Make a call whose end stands in the access log, whichever it is."""
        failed: BaseException | None = None
        try:
            value = self._answer(caller, method, params, context)
            return await _whole(value)
        except BaseException as error:
            failed = error
            raise
        finally:
            if self._access:
                self._access.done(caller, method, params, failed)

    async def _made_by_tool(self, caller: Caller, method: str, params: Any, context: CallContext) -> Any:
        try:
            value = self.call(caller, method, params, context)
            return await _whole(value)
        except AgentdError as error:
            raise self.as_error(caller, method, error) from None

    async def _batch(self, caller: Caller, items: list[Any], context: CallContext) -> list[list[Any]]:
        outcomes = []
        for number, item in enumerate(items):
            if number % _CALLS_PER_TURN == _CALLS_PER_TURN - 1:
                await anyio.lowlevel.checkpoint()  # other connections have their turn
            outcomes.append(await self._batched(caller, item, context))
        return outcomes

    async def _batched(self, caller: Caller, item: Any, context: CallContext) -> list[Any]:
        method = BATCH
        try:
            method, params = _batch_item(item)
            value = self.call(caller, method, params, context)
            return [0, await _whole(value)]
        except Exception as error:  # noqa: BLE001  one call's end: told to its caller, and logged if ours
            told = self.as_error(caller, method, error)
            return [told.code, told.message, told.data()]


async def _whole(value: Any) -> Any:
    """Return an answer that may have to be waited for; within another call it is, in that one's task."""
    if isinstance(value, CoroutineType):
        value = await value
    return await value.whole() if isinstance(value, Wait) else value


def _batch_items(params: Any) -> list[Any]:
    if not isinstance(params, list) or len(params) > _BATCH_MAX_CALLS:
        raise InvalidValue(
            f"{BATCH} takes a list of at most {_BATCH_MAX_CALLS} pairs [method, params]", field="$", hint="split it"
        )
    return params


def _batch_item(item: Any) -> tuple[str, Any]:
    if not isinstance(item, list) or len(item) != 2 or not isinstance(item[0], str):
        raise InvalidValue(f"a call within {BATCH} is a pair [method, params]", field="$")
    method, params = item
    if method == BATCH or (method in CALLS and CALLS[method].stream):
        raise InvalidValue(f"{method} cannot be called within {BATCH}", hint="call it by itself")
    return method, params

"""A model server on 127.0.0.1 for real programs: a prompt says in (( )) how it is answered, and the server keeps it.

    ((reply TEXT))          answers TEXT
    ((lines N))             answers N numbered lines
    ((slow S))              takes S seconds to say its answer, a piece every quarter of a second
    ((hang S))              says nothing for S seconds, then answers
    ((http CODE))           answers with an error, every time
    ((tool COMMAND))        asks for a command to be run in the program's shell
    ((call NAME JSON))      asks for a call of the first tool whose name ends in NAME

Without one it answers `got N characters DIGEST`, so that a prompt which arrived whole is known by its answer.
It speaks Anthropic's messages, OpenAI's responses and chat completions, and Gemini's generateContent.
By hand: python tests/real/model.py [PORT]
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

DIRECTIVE = re.compile(r"\(\((\w+)(?: (.*?))?\)\)", re.DOTALL)
SHELLS = ("Bash", "bash", "exec_command", "shell_command", "shell", "run_shell_command")
PIECE_S = 0.25
# Blocks that programs add to what was typed.
ADDED = re.compile(
    r"\s*<(?:system-reminder|environment_context|user_instructions|permissions|skills|apps|turn_aborted)"
)
CODES = {400: "invalid_request_error", 401: "authentication_error", 429: "rate_limit_error", 529: "overloaded_error"}
# A quota that is used up for the day: one that a program may hope for again in a minute is not shown to its user.
QUOTA = [
    {
        "@type": "type.googleapis.com/google.rpc.QuotaFailure",
        "violations": [{"quotaId": "GenerateRequestsPerDayPerProjectPerModel"}],
    }
]
numbers = itertools.count(1)


@dataclass
class Asked:
    """One request, whatever its dialect."""

    dialect: str
    said: list[str]  # every text of the user in the conversation, oldest first
    prompt: str  # what the user said since the last answer
    result: str | None  # the output of the tool that was asked for last, when nothing was said after it
    tools: dict[str, dict[str, Any]]  # what may be called, with its schema
    namespaces: dict[str, str]  # of those of them that have one
    stream: bool
    at_s: float = field(default_factory=time.time)
    raw: str = ""  # the whole request, with what a program puts into it unasked
    answer: str = ""
    answered_s: float = 0.0  # when the answer was told to its end; 0: it was not, or the program went away

    @property
    def main(self) -> bool:
        """Tell whether it belongs to the conversation; titles and summaries are asked for without tools."""
        return bool(self.tools)


@dataclass(frozen=True)
class Plan:
    """What is answered, and how."""

    text: str = ""
    tool: str = ""
    arguments: dict[str, Any] = field(default_factory=dict)
    code: int = 200
    hang_s: float = 0.0
    slow_s: float = 0.0

    def pieces(self) -> Iterator[str]:
        """Yield the text, at its pace."""
        words = re.findall(r"\S*\s*", self.text)
        count = max(1, int(self.slow_s / PIECE_S))
        size = -(-len(words) // count)
        for start in range(0, len(words), size):
            yield "".join(words[start : start + size])
            if self.slow_s:
                time.sleep(PIECE_S)


def digest(text: str) -> str:
    """Return what a prompt is known by."""
    return hashlib.sha256(text.strip().encode()).hexdigest()[:12]


def plan(asked: Asked) -> Plan:
    """Return the answer that the newest prompt asks for."""
    if not asked.main:
        return Plan(text='{"title": "a test"}')
    if asked.result is not None:
        return Plan(text=f"the tool said: {' '.join(asked.result.split())[:200]}")
    wanted = {name: value or "" for name, value in DIRECTIVE.findall(asked.prompt)}
    if "http" in wanted:
        return Plan(code=int(wanted["http"]))
    slow_s, hang_s = float(wanted.get("slow", 0)), float(wanted.get("hang", 0))
    if "tool" in wanted:
        name = next((name for name in SHELLS if name in asked.tools), "")
        return Plan(tool=name, arguments=_filled(asked.tools[name], wanted["tool"]), hang_s=hang_s)
    if "call" in wanted:
        ending, _, arguments = wanted["call"].partition(" ")
        name = next((name for name in asked.tools if name.endswith(ending)), "")
        return Plan(tool=name, arguments=json.loads(arguments or "{}"), hang_s=hang_s)
    return Plan(text=_text(asked.prompt, wanted, slow_s), slow_s=slow_s, hang_s=hang_s)


def _text(prompt: str, wanted: dict[str, str], slow_s: float) -> str:
    if "reply" in wanted:
        return wanted["reply"]
    if "lines" in wanted:
        return "\n".join(f"line {number} of the answer" for number in range(1, int(wanted["lines"]) + 1))
    filling = " ".join(f"word{number}" for number in range(int(slow_s * 4)))
    return f"{filling} got {len(prompt.strip())} characters {digest(prompt)}".strip()


def _filled(schema: dict[str, Any], command: str) -> dict[str, Any]:
    """Return arguments for a shell tool: the command, what else is required, and the wish to leave a sandbox."""
    plain = {"string": "a test", "number": 1, "integer": 1, "boolean": False, "array": [], "object": {}}
    found: dict[str, Any] = {}
    for name, kind in (schema.get("properties") or {}).items():
        if name in ("command", "cmd"):
            found[name] = ["bash", "-lc", command] if kind.get("type") == "array" else command
        elif name == "sandbox_permissions":
            found[name] = "require_escalated"
        elif name == "with_escalated_permissions":
            found[name] = True
        elif name == "justification" or name in schema.get("required", ()):
            found[name] = plain.get(str(kind.get("type", "string")).lower(), "a test")
    return found


# -- reading requests


def _joined(content: Any) -> str:
    if isinstance(content, str):
        return content
    texts = [part.get("text") for part in content or [] if isinstance(part, dict)]
    return "\n".join(text for text in texts if isinstance(text, str) and not ADDED.match(text))


class _Conversation:
    """Collects what was said, in order."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.new: list[str] = []
        self.result: str | None = None

    def user(self, text: str) -> None:
        if text.strip() and not ADDED.match(text) and not text.startswith(("# AGENTS.md", "[Request interrupted")):
            self.said.append(text)
            self.new.append(text)
            self.result = None

    def assistant(self) -> None:
        self.new, self.result = [], None

    def tool(self, output: str) -> None:
        self.result = output

    def asked(self, dialect: str, tools: dict[str, dict[str, Any]], *, stream: bool) -> Asked:
        return Asked(dialect, self.said, "\n".join(self.new), self.result, tools, {}, stream)


def read_messages(body: dict[str, Any]) -> Asked:
    """Read Anthropic's dialect."""
    talk = _Conversation()
    for message in body.get("messages", []):
        if message["role"] == "assistant":
            talk.assistant()
            continue
        content = message["content"]
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if part.get("type") == "tool_result":
                talk.tool(_joined(part.get("content")))
            elif message["role"] == "user" and "text" in part:
                talk.user(part["text"])
    tools = {tool["name"]: tool.get("input_schema") or {} for tool in body.get("tools") or []}
    return talk.asked("messages", tools, stream=bool(body.get("stream")))


def read_chat(body: dict[str, Any]) -> Asked:
    """Read OpenAI's chat completions."""
    talk = _Conversation()
    for message in body.get("messages", []):
        match message["role"]:
            case "assistant":
                talk.assistant()
            case "tool":
                talk.tool(_joined(message.get("content")))
            case "user":
                talk.user(_joined(message.get("content")))
    tools = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in body.get("tools") or []}
    return talk.asked("chat", tools, stream=bool(body.get("stream")))


def read_responses(body: dict[str, Any]) -> Asked:
    """Read OpenAI's responses."""
    talk = _Conversation()
    given = body.get("input") or []
    for item in [{"role": "user", "content": given}] if isinstance(given, str) else given:
        kind = item.get("type", "message")
        if kind.endswith("_output"):
            talk.tool(_joined(item.get("output")))
        elif item.get("role") == "user":
            talk.user(_joined(item.get("content")))
        elif kind.endswith("_call") or item.get("role") == "assistant":
            talk.assistant()
    tools: dict[str, dict[str, Any]] = {}
    namespaces: dict[str, str] = {}
    for tool in body.get("tools") or []:
        for each in tool.get("tools") or [tool]:  # one level of namespaces
            name = each.get("name") or each["type"]
            tools[name] = each.get("parameters") or {}
            if tool["type"] == "namespace":
                namespaces[name] = tool["name"]
    asked = talk.asked("responses", tools, stream=bool(body.get("stream")))
    asked.namespaces = namespaces
    return asked


def read_gemini(body: dict[str, Any], *, stream: bool) -> Asked:
    """Read Gemini's generateContent."""
    talk = _Conversation()
    for content in body.get("contents") or []:
        if content.get("role") == "model":
            talk.assistant()
            continue
        for part in content.get("parts") or []:
            if "functionResponse" in part:
                talk.tool(json.dumps(part["functionResponse"].get("response")))
            elif "text" in part:
                talk.user(part["text"])
    tools = {
        tool["name"]: tool.get("parametersJsonSchema") or tool.get("parameters") or {}
        for group in body.get("tools") or []
        for tool in group.get("functionDeclarations") or []
    }
    return talk.asked("gemini", tools, stream=stream)


# -- writing answers: each yields the events of a stream; the last one holds the whole for those who do not stream

Events = Iterator[tuple[str, Any]]


def write_messages(asked: Asked, plan: Plan) -> Events:
    """Write Anthropic's dialect."""
    number = next(numbers)
    empty: dict[str, Any] = {"type": "text", "text": ""}
    reason = "end_turn"
    if plan.tool:
        empty = {"type": "tool_use", "id": f"toolu_{number}", "name": plan.tool, "input": {}}
        reason = "tool_use"
    message = {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": "test-model",
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {"input_tokens": 10, "output_tokens": 1},
    }
    yield "message_start", {"message": message}
    yield "content_block_start", {"index": 0, "content_block": empty}
    if plan.tool:
        delta = {"type": "input_json_delta", "partial_json": json.dumps(plan.arguments)}
        yield "content_block_delta", {"index": 0, "delta": delta}
    for piece in plan.pieces() if not plan.tool else ():
        yield "content_block_delta", {"index": 0, "delta": {"type": "text_delta", "text": piece}}
    yield "content_block_stop", {"index": 0}
    ending = {"stop_reason": reason, "stop_sequence": None}
    yield "message_delta", {"delta": ending, "usage": {"output_tokens": 20}}
    yield "message_stop", {}
    block = empty | ({"input": plan.arguments} if plan.tool else {"text": plan.text})
    yield "", message | {"content": [block], "stop_reason": reason}


def write_chat(asked: Asked, plan: Plan) -> Events:
    """Write OpenAI's chat completions."""
    number = next(numbers)
    base = {"id": f"chat_{number}", "created": int(time.time()), "model": "test-model"}
    call = {
        "index": 0,
        "id": f"call_{number}",
        "type": "function",
        "function": {"name": plan.tool, "arguments": json.dumps(plan.arguments)},
    }
    calls = {"tool_calls": [call]} if plan.tool else {}
    reason = "tool_calls" if plan.tool else "stop"
    usage = {"prompt_tokens": 10, "completion_tokens": 20, "total_tokens": 30}

    def chunk(delta: dict[str, Any], ending: str | None = None) -> tuple[str, Any]:
        choice = {"index": 0, "delta": delta, "finish_reason": ending}
        return "data", base | {"object": "chat.completion.chunk", "choices": [choice]}

    yield chunk({"role": "assistant", "content": ""} | calls)
    for piece in plan.pieces() if not plan.tool else ():
        yield chunk({"content": piece})
    yield chunk({}, reason)
    yield "data", base | {"object": "chat.completion.chunk", "choices": [], "usage": usage}
    said = {"role": "assistant", "content": plan.text} | calls
    choice = {"index": 0, "message": said, "finish_reason": reason}
    yield "", base | {"object": "chat.completion", "choices": [choice], "usage": usage}


def write_responses(asked: Asked, plan: Plan) -> Events:
    """Write OpenAI's responses."""
    number = next(numbers)
    part: dict[str, Any] = {"type": "output_text", "text": plan.text, "annotations": []}
    item: dict[str, Any] = {"type": "message", "id": f"msg_{number}", "role": "assistant", "content": [part]}
    if plan.tool:
        arguments = json.dumps(plan.arguments)
        item = {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": plan.tool}
        item["arguments"] = arguments
        if plan.tool in asked.namespaces:
            item["namespace"] = asked.namespaces[plan.tool]
    item["status"] = "completed"
    usage = {
        "input_tokens": 10,
        "input_tokens_details": {"cached_tokens": 0},
        "output_tokens": 20,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": 30,
    }
    begun = {"id": f"resp_{number}", "object": "response", "status": "in_progress", "model": "test-model", "output": []}
    whole = begun | {"status": "completed", "output": [item], "usage": usage}
    where = {"item_id": item["id"], "output_index": 0}
    yield "response.created", {"response": begun}
    yield "response.output_item.added", {"output_index": 0, "item": item | {"content": []}}
    if not plan.tool:
        where |= {"content_index": 0}
        yield "response.content_part.added", where | {"part": part | {"text": ""}}
        for piece in plan.pieces():
            yield "response.output_text.delta", where | {"delta": piece}
        yield "response.output_text.done", where | {"text": plan.text}
    yield "response.output_item.done", {"output_index": 0, "item": item}
    yield "response.completed", {"response": whole}
    yield "", whole


def write_gemini(asked: Asked, plan: Plan) -> Events:
    """Write Gemini's generateContent."""
    usage = {"promptTokenCount": 10, "candidatesTokenCount": 20, "totalTokenCount": 30}

    def candidate(part: dict[str, Any], ending: str | None = None) -> dict[str, Any]:
        found: dict[str, Any] = {"content": {"role": "model", "parts": [part]}, "index": 0}
        if ending:
            found["finishReason"] = ending
        return {"candidates": [found], "usageMetadata": usage, "modelVersion": "test-model"}

    call = {"functionCall": {"name": plan.tool, "args": plan.arguments, "id": f"call_{next(numbers)}"}}
    if plan.tool:
        yield "data", candidate(call, "STOP")
    else:
        for piece in plan.pieces():
            yield "data", candidate({"text": piece})
        yield "data", candidate({"text": ""}, "STOP")
    yield "", candidate(call if plan.tool else {"text": plan.text}, "STOP")


WRITERS: dict[str, Callable[[Asked, Plan], Events]] = {
    "messages": write_messages,
    "chat": write_chat,
    "responses": write_responses,
    "gemini": write_gemini,
}


def read(path: str, body: dict[str, Any]) -> Asked | None:
    """Return what a request asks; None for one that is no question."""
    if path.endswith("/messages"):
        return read_messages(body)
    if path.endswith("/chat/completions"):
        return read_chat(body)
    if path.endswith("/responses"):
        return read_responses(body)
    if path.endswith((":generateContent", ":streamGenerateContent")):
        return read_gemini(body, stream="stream" in path)
    return None


# -- the server


class Door(BaseHTTPRequestHandler):
    """One connection of a program."""

    protocol_version = "HTTP/1.1"
    server: Model

    def log_message(self, *_: Any) -> None:
        """Say nothing: what matters is kept in `asked`."""

    def do_HEAD(self) -> None:
        self._whole({})

    def do_GET(self) -> None:
        self._whole({"object": "list", "data": [{"id": "test-model", "object": "model"}], "has_more": False})

    def do_POST(self) -> None:
        path = self.path.partition("?")[0]
        body = self._body()
        asked = read(path, body)
        if asked is None:
            self._whole({"input_tokens": 100, "totalTokens": 100})
            return
        asked.raw = json.dumps(body)
        self.server.asked.append(asked)
        wanted = plan(asked)
        asked.answer = wanted.text
        try:
            self._answer(asked, wanted)
            asked.answered_s = time.time()
        except OSError:  # the program went away in the middle
            self.close_connection = True

    def _answer(self, asked: Asked, wanted: Plan) -> None:
        time.sleep(wanted.hang_s)
        if wanted.code != 200:
            self._whole(_error(asked.dialect, wanted.code), wanted.code)
            return
        events = WRITERS[asked.dialect](asked, wanted)
        if asked.stream:
            self._stream(asked.dialect, events)
        else:
            self._whole(list(events)[-1][1])

    def _stream(self, dialect: str, events: Events) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for number, (name, value) in enumerate(events):
            if not name:
                break
            if dialect in ("messages", "responses"):
                typed = {"type": name, "sequence_number": number} | value
                self._chunk(f"event: {name}\ndata: {json.dumps(typed)}\n\n")
            else:
                self._chunk(f"data: {json.dumps(value)}\n\n")
        if dialect == "chat":
            self._chunk("data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _whole(self, value: Any, code: int = 200) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _body(self) -> dict[str, Any]:
        if self.headers.get("transfer-encoding", "").lower() != "chunked":
            return json.loads(self.rfile.read(int(self.headers.get("content-length", 0))) or b"{}")
        data = b""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return json.loads(data)


def _error(dialect: str, code: int) -> dict[str, Any]:
    message, kind = f"the test wants {code}", CODES.get(code, "api_error")
    if dialect == "gemini":
        status = "RESOURCE_EXHAUSTED" if code == 429 else "INTERNAL"
        return {"error": {"code": code, "message": message, "status": status, "details": QUOTA if code == 429 else []}}
    return {"type": "error", "error": {"type": kind, "code": kind, "message": message}}


class Model(ThreadingHTTPServer):
    """The server and everything it was asked, in order."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Door)
        self.asked: list[Asked] = []

    @property
    def url(self) -> str:
        """Return where it listens."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def main(self) -> list[Asked]:
        """Return the questions of conversations."""
        return [asked for asked in list(self.asked) if asked.main]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a connection that broke."""

    def __enter__(self) -> Model:
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


if __name__ == "__main__":
    server = Model(int(sys.argv[1]) if len(sys.argv) > 1 else 0)
    print(server.url, flush=True)
    server.serve_forever()

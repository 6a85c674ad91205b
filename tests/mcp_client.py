"""A client of `agentd mcp`, line by line: what a program in any language would write and read. No library."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

LIMIT_S = 20.0
PYTHONPATH = os.pathsep.join(filter(None, sys.path))
STATELESS = "2026-07-28"
META = {
    "io.modelcontextprotocol/protocolVersion": STATELESS,
    "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"},
    "io.modelcontextprotocol/clientCapabilities": {},
}


class McpClient:
    """One `agentd mcp` of an agent's; requests get whole numbers for ids."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.last_id = 0
        self._buffer = b""

    # -- as it is

    def write(self, data: bytes) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def send(self, message: Any) -> None:
        self.write(json.dumps(message).encode() + b"\n")

    def read(self, limit_s: float = LIMIT_S) -> Any:
        """Return what stands on the next line; fail when none comes or it is no JSON."""
        end_s = time.monotonic() + limit_s
        while b"\n" not in self._buffer:
            assert self._more(end_s - time.monotonic()), f"no line within {limit_s:g} s"
        line, _, self._buffer = self._buffer.partition(b"\n")
        assert line.isascii()
        return json.loads(line)

    def silent(self, for_s: float) -> bool:
        """Tell whether nothing comes for so long."""
        return not self._buffer and not self._more(for_s)

    def _more(self, limit_s: float) -> bool:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], max(0.0, limit_s))
        data = os.read(self.process.stdout.fileno(), 65_536) if ready else b""
        self._buffer += data
        return bool(data)

    # -- as a conversation

    def begin(self, method: str, params: Any = None, **more: Any) -> int:
        """Send a request and return its id."""
        self.last_id += 1
        self.send({"jsonrpc": "2.0", "id": self.last_id, "method": method, "params": {**(params or {}), **more}})
        return self.last_id

    def ask(self, method: str, params: Any = None, **more: Any) -> Any:
        """Send a request and return the whole answer, which must be the next line."""
        id_ = self.begin(method, params, **more)
        answer = self.read()
        assert (answer["jsonrpc"], answer["id"]) == ("2.0", id_), answer
        return answer

    def initialize(self, version: str = "2025-11-25") -> Any:
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "test", "version": "1"}}
        answer = self.ask("initialize", params)["result"]
        self.send({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return answer

    def tools(self) -> list[dict[str, Any]]:
        return self.ask("tools/list")["result"]["tools"]

    def use(self, name: str, /, **arguments: Any) -> Any:
        """Use a tool that succeeds; return its data."""
        result = self.ask("tools/call", name=name, arguments=arguments)["result"]
        assert not result["isError"], result
        return result["structuredContent"]

    def refusal(self, name: str, /, **arguments: Any) -> dict[str, Any]:
        """Use a tool that fails; return its error."""
        result = self.ask("tools/call", name=name, arguments=arguments)["result"]
        assert result["isError"], result
        assert result["structuredContent"]["error"]["message"] in result["content"][0]["text"]
        return result["structuredContent"]["error"]

    def end(self) -> tuple[int, str]:
        """Close its stdin; return how it ended and what it said on stderr."""
        assert self.process.stdin is not None
        assert self.process.stderr is not None
        self.process.stdin.close()
        code = self.process.wait(LIMIT_S)
        return code, self.process.stderr.read().decode()


def command() -> list[str]:
    return [sys.executable, "-m", "agentd", "mcp"]


@contextmanager
def mcp_client(environ: Mapping[str, str], version: str | None = "2025-11-25") -> Iterator[McpClient]:
    """Give a client that has said `initialize`, unless there is no version; it ends without a traceback."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AGENTD_")}
    process = subprocess.Popen(
        command(),
        env={**plain, "PYTHONPATH": PYTHONPATH, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    with process:
        client = McpClient(process)
        try:
            if version:
                client.initialize(version)
            yield client
            code, said = client.end() if process.poll() is None else (0, "")
            assert (code, said) == (0, "")
        finally:
            process.kill()

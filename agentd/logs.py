"""Structured logs: one JSON object a line, configured once."""

from __future__ import annotations

import logging
import os
from typing import Any

import structlog

from agentd.private import open_private

Log = Any  # structlog's bound loggers have no useful static type


class _Lines:
    """A file of whole lines; one that the disk does not take is lost, and whoever logged it goes on.

    On a full disk a daemon that fell over its own log would take with it what it could still do.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lost = 0

    def write(self, line: str) -> None:
        if self._lost:
            line = f'{{"lost": {self._lost}, "event": "lines could not be written", "level": "warning"}}\n{line}'
        try:
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))
        except OSError:
            self._lost += 1
        else:
            self._lost = 0

    def flush(self) -> None:
        """Do nothing: a line is written when it is."""


def to_file(path: str, level: str) -> Log:
    """Configure logging to a private file and return the root logger.

    Values are JSON strings, so a message with a newline in it cannot forge a line. Tracebacks carry no local variables.
    """
    descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    file: Any = _Lines(descriptor)
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(sort_keys=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.WriteLoggerFactory(file=file),
        cache_logger_on_first_use=False,
    )
    return structlog.get_logger()

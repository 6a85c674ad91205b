"""Structured logs: one JSON object a line, configured once."""

from __future__ import annotations

import logging
import os
from typing import Any

import structlog

from agentd.paths import open_private

Log = Any  # structlog's bound loggers have no useful static type


def to_file(path: str, level: str) -> Log:
    """Configure logging to a private file and return the root logger.

    Values are JSON strings, so a message with a newline in it cannot forge a line. Tracebacks carry no local variables.
    """
    descriptor = open_private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    file = os.fdopen(descriptor, "a", buffering=1, encoding="utf-8", errors="backslashreplace")
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

"""The protocol, sans-I/O: bytes in, objects out, and the table of calls."""

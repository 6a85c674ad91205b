"""The mailbox: durable messages in a few SQLite files, one writer thread for each."""

"""Durable inboxes: sharded files, one writer each, group commit."""

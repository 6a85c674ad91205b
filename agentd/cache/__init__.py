"""Answers about tmux that are kept: served from memory, dropped when tmux says that something changed."""

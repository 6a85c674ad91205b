"""The only rooms that know tmux: notation, one control connection, the dozen operations we use."""

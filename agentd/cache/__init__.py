"""Answers that are kept: served from memory, dropped when somebody says that what they tell of has changed."""

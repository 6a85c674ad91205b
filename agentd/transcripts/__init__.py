"""Transcripts: everything that agents printed, in files of their own, kept for a time and searched."""

"""Errands: the user's own commands, run when something happens, where they can hold nobody up."""

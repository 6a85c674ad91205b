"""Doors translate and authorise, nothing else."""

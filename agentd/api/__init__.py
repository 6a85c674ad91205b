"""What may be asked: one function per call, grouped by noun."""

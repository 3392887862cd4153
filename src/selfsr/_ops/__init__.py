"""Operators: registration with torch, the choice of a backend, compilation and work memory."""

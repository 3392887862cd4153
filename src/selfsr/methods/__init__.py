"""The training methods: which network is updated, in which order, with which losses."""

from selfsr.methods.contract import Method, Setup, Update

__all__ = ["Method", "Setup", "Update"]

"""The training methods: which network is updated, in which order, with which losses."""

from selfsr.methods.contract import Method, MethodSetup, MethodSpec

__all__ = ["Method", "MethodSetup", "MethodSpec"]

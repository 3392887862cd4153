"""The networks: generators, discriminators, and their weights files."""

from selfsr.nets.union import AnyNetwork, Network, describe

__all__ = ["AnyNetwork", "Network", "describe"]

"""The networks: generators, discriminators, and their weights files."""

from selfsr.nets.union import AnyNetwork, Network, list_networks

__all__ = ["AnyNetwork", "Network", "list_networks"]

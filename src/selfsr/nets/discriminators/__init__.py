"""The discriminators, one file each."""

from selfsr.nets.discriminators.union import AnyDiscriminatorNetwork, DiscriminatorNetwork

__all__ = ["AnyDiscriminatorNetwork", "DiscriminatorNetwork"]

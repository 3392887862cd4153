"""The discriminators: one file each."""

from selfsr.nets.discriminators.union import AnyCritic, Critic

__all__ = ["AnyCritic", "Critic"]

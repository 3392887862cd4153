"""Networks that sample: residual shifting in pixel space or in the latent space of an autoencoder.

`shift.py` has the mathematics, `noise.py` the random numbers, `spaces.py` the autoencoders, and
`residual_shifting.py` the network.
"""

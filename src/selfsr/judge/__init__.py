"""The judge: what an image scores, and an upscaler on sets of them, by the protocol of the literature."""

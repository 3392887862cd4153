"""What images score by the protocol of the literature, and a model on sets of them."""

"""Register the losses with traiNNer-redux: `import selfsr.integrations.redux`. See docs/integrations.md.

traiNNer-redux multiplies each loss by its attribute `loss_weight`, so the losses themselves do not.
"""

from selfsr.integrations.adapters import register_losses

register_losses("traiNNer-redux", "traiNNer", applies_weight=False)

"""Register the losses with neosr: `import selfsr.integrations.neosr`. See docs/integrations.md."""

from selfsr.integrations.adapters import register_losses

register_losses("neosr", "neosr", applies_weight=True)

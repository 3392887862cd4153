"""Register the losses with BasicSR: `import selfsr.integrations.basicsr`. See docs/integrations.md."""

from selfsr.integrations.adapters import register_losses

register_losses("BasicSR", "basicsr", applies_weight=True)

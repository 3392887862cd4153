"""Fine-tune a model on a folder of photographs: choose the recipe, run it, and show before and after."""

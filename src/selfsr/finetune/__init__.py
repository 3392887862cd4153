"""Fine-tune a model on a folder of photos: choose the recipe, train, and show outputs before and after."""

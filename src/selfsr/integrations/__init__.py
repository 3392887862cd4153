"""The losses for other trainers. Each module is imported only by name and registers the losses with one trainer."""

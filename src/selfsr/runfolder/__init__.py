"""The run folder: its format is written and read here and nowhere else."""

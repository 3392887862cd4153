"""Compare models and folders of finished images: scores, speed, memory, and an HTML page with the outputs."""

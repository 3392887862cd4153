"""Time, memory and error of the self-similarity loss, for each backend and the published formulation."""

"""Time, memory and error of the self-similarity operator, against the published formulation and backend by backend."""

"""Write and read the run folder; no other part of the package depends on its format."""

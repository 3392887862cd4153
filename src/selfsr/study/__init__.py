"""Studies: test a claim about a recipe with several arms and seeds."""

from selfsr.study.run import DEFAULT_FOLDER, dry_run_study, open_study, run_study, summarize, write_results

__all__ = ["DEFAULT_FOLDER", "dry_run_study", "open_study", "run_study", "summarize", "write_results"]

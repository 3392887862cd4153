"""Studies: recipes x arms x seeds, paired by seed, to test a claim about anything in a recipe."""

from selfsr.study.run import DEFAULT_FOLDER, open_study, rehearse, run_study, summarize, write_results

__all__ = ["DEFAULT_FOLDER", "open_study", "rehearse", "run_study", "summarize", "write_results"]

"""The table of `selfsr compare`: one row for each model, with a star at the best value of each column."""

from collections.abc import Sequence

from selfsr.cli.score_table import Row, ScoreTable
from selfsr.comparison.columns import build_columns, describe_columns
from selfsr.comparison.run import ComparisonTask, Result

_BEST = "*"


def tabulate_comparison(results: Sequence[Result], sets: Sequence[str], task: ComparisonTask) -> ScoreTable:
    """Return the table of all sets; in a column, `*` marks the best value of each set.

    Args:
        results: the results.
        sets: names of the sets.
        task: the options.
    """
    titles: list[str] = []
    for name in sets:
        titles += [column.title for column in build_columns(results, name) if column.title not in titles]
    rows: list[Row] = []
    for name in sets:
        columns = {column.title: column for column in build_columns(results, name)}
        for index, result in enumerate(results):
            if name not in result.sets:  # after an interruption
                continue
            scores = []
            for title in titles:
                column = columns.get(title)
                text = "-" if column is None else column.texts[index]
                scores.append(text + (_BEST if column is not None and index in column.best else " "))
            rows.append(Row((name, result.name, str(len(result.sets[name].images))), scores))
    caption = f"{_BEST} best of its column. {describe_columns(results, sets, task)}".strip()
    return ScoreTable((f"x{task.scale}", "model", "images"), titles, rows, caption)

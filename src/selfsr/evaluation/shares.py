"""Divide the images of an evaluation among processes, and join their scores."""

from collections.abc import Sequence

from selfsr.evaluation.benchmark import SetScores


def split_indices(count: int, processes: int, first: int = 0) -> list[range]:
    """Return the indices of the images of each process: blocks of nearly equal sizes.

    Args:
        count: number of images.
        processes: number of processes.
        first: the least number of images of the first process, if there are as many.

    Example:
        >>> split_indices(10, 3)
        [range(0, 4), range(4, 7), range(7, 10)]
        >>> split_indices(10, 3, first=5)
        [range(0, 5), range(5, 8), range(8, 10)]
    """
    start = min(count, max(first, -(-count // processes)))
    shares, left = [range(start)], processes - 1
    while left:
        stop = start + -(-(count - start) // left)
        shares.append(range(start, stop))
        start, left = stop, left - 1
    return shares


def join_shares(shares: Sequence[SetScores]) -> SetScores:
    """Return the scores of a set from those of its parts, in the order of the parts.

    Args:
        shares: the scores of each process. At most one has scores of the set itself, such as FID.
    """
    first = shares[0]
    return SetScores(
        first.name,
        {name: row for share in shares for name, row in share.images.items()},
        {name: value for share in reversed(shares) for name, value in share.of_set.items()},
        {seed: join_shares([share.by_seed[seed] for share in shares]) for seed in first.by_seed},
    )

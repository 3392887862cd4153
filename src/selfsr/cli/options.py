"""Options that several commands share."""

from typing import Annotated

import typer

DeviceOption = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1 or mps; auto prefers a GPU.")]
SelfEnsembleOption = Annotated[
    bool,
    typer.Option("--self-ensemble", help="Average over the 8 flips and rotations: slightly better, 8 times slower."),
]

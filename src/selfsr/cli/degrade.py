"""`selfsr degrade`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from selfsr.degrade.presets import PresetSpec

EPILOG = """[bold]Presets[/bold]

real_esrgan, bsrgan: the original papers' heavy ones.

real_esrgan_ssl, bsrgan_ssl, stablesr_ssl: the milder ones that the self-similarity paper trains with.

real_esrgan_ssl_test, bsrgan_ssl_test, and ssl_test, which mixes them 60 to 40: that paper's blind test sets.

[bold]Examples[/bold]

selfsr degrade photos -o photos_lr --preset bsrgan --seed 1

selfsr degrade Set14 -o Set14_blind --preset ssl_test --per-image 30

selfsr degrade photos -o seen --recipe my.yaml --contact-sheet sheet.png

selfsr evaluate best.safetensors --data Set14 --lr Set14_blind/1 --scale 4"""

_ROWS = 6
_LEAST_DRAWS = 4


def degrade(
    folder: Annotated[Path, typer.Argument(help="Folder of HR pictures, searched with its subfolders.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the LR pictures, PNG of 8 bit.")],
    preset: Annotated[str | None, typer.Option(help="Name of the degradation; see below.")] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="In place of --preset: what the training of this recipe sees.")
    ] = None,
    scale: Annotated[
        int | None, typer.Option(min=2, help="How many times smaller LR is; 4, or the recipe's, if not given.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Start of all randomness: the same seed, the same pictures.")] = 1,
    per_image: Annotated[
        int, typer.Option(min=1, help="Draws of each picture; several go into the folders 1, 2, ... of the output.")
    ] = 1,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(help=f"Also write a picture that shows {_LEAST_DRAWS} draws or more of the first {_ROWS} ones."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace pictures that are already there.")] = False,
) -> None:
    """Make LR pictures as cameras, editors and networks do: blur, resize, noise and JPEG, drawn for each picture.

    What a.png becomes is called ax4.png: data of kind: pairs find it by this name.

    What was drawn is written to degradations.jsonl in the output folder.

    A draw depends on the picture's name and the seed, not on what else is there.
    """
    from selfsr.console import bar
    from selfsr.degrade.files import degrade_files, plan_jobs
    from selfsr.degrade.sheet import contact_sheet as write_sheet
    from selfsr.errors import InputError
    from selfsr.images.files import check_format

    degradation, times = _chosen(preset, recipe, scale)
    if contact_sheet is not None:
        check_format(contact_sheet, height=1, width=1, bits=8, alpha=False)
        if contact_sheet.resolve().parent == folder.resolve():
            raise InputError(f"degrade: {contact_sheet} lies among the originals; write the contact sheet elsewhere.")
    jobs = plan_jobs(folder, output, scale=times, per_image=per_image, overwrite=overwrite)
    with bar(f"Degrading {folder}", len(jobs)) as advance:
        outcome = degrade_files(jobs, output, degradation, scale=times, seed=seed, advance=advance)
    typer.echo(f"{outcome.written:,} of {len(jobs):,} pictures written to {output}.")
    for sentence in outcome.failures[:20]:
        typer.echo(f"selfsr: {sentence}", err=True)
    if contact_sheet is not None:
        shown = list(dict.fromkeys((job.source, job.name) for job in jobs))[:_ROWS]
        draws = min(max(per_image, _LEAST_DRAWS), 8)
        write_sheet(contact_sheet, shown, degradation, scale=times, seed=seed, draws=draws)
        typer.echo(f"Contact sheet: {contact_sheet}")
    if outcome.failures:
        typer.echo(f"selfsr: {len(outcome.failures):,} of {len(jobs):,} pictures failed.", err=True)
        raise typer.Exit(1)


def _chosen(preset: str | None, recipe: Path | None, scale: int | None) -> "tuple[PresetSpec, int]":
    """Return the degradation and the scale that were asked for."""
    from selfsr.degrade.presets import PRESETS
    from selfsr.degrade.presets import preset as named
    from selfsr.errors import InputError
    from selfsr.recipe import load_recipe

    if (preset is None) == (recipe is None):
        raise InputError(f"degrade: exactly one of --preset and --recipe is needed; presets are {', '.join(PRESETS)}.")
    if preset is not None:
        return named(preset), scale or 4
    assert recipe is not None
    loaded = load_recipe(recipe)
    degradation = getattr(loaded.data, "degrade", None)
    if degradation is None:
        raise InputError(f"degrade: {recipe} has no data.degrade, its LR is bicubic; name a preset with --preset.")
    if scale not in loaded.scales and (scale is not None or len(loaded.scales) > 1):
        known, came = " and ".join(map(str, loaded.scales)), "none" if scale is None else scale
        raise InputError(f"degrade: {recipe} trains at scale {known}; name one with --scale, got {came}.")
    return degradation, min(loaded.scales) if scale is None else scale

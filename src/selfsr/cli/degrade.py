"""`selfsr degrade`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from selfsr.cli.messages import describe_left_out, print_left_out

if TYPE_CHECKING:
    from selfsr.degrade.presets import PresetSpec

EPILOG = """[bold]Presets[/bold]

real_esrgan, bsrgan: strong degradations, as in the original papers.

real_esrgan_ssl, bsrgan_ssl, stablesr_ssl: milder ones, from the training of the self-similarity paper.

real_esrgan_ssl_test, bsrgan_ssl_test, ssl_test (a 60:40 mixture of these two): that paper's blind test sets.

[bold]Examples[/bold]

selfsr degrade photos -o photos_lr --preset bsrgan --seed 1

selfsr degrade Set14 -o Set14_blind --preset ssl_test --per-image 30

selfsr degrade photos -o lr --recipe my.yaml --contact-sheet sheet.png

selfsr evaluate best.safetensors --data Set14 --lr Set14_blind/1 --scale 4"""

_SHEET_ROWS = 6
_MIN_SHEET_DRAWS = 4


def degrade(
    folder: Annotated[Path, typer.Argument(help="Folder of HR images; subfolders are searched.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Output folder for the LR images: 8-bit PNG.")],
    preset: Annotated[str | None, typer.Option(help="Preset of the degradation; see below.")] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            help="Instead of --preset: use the degradation of this recipe, to make the LR images of its training."
        ),
    ] = None,
    scale: Annotated[
        int | None, typer.Option(min=2, help="How many times smaller LR is. Default: 4, or the scale of the recipe.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed; the same seed gives the same images.")] = 1,
    per_image: Annotated[
        int,
        typer.Option(min=1, help="LR versions of each image; several go to the subfolders 1, 2, ... of the output."),
    ] = 1,
    contact_sheet: Annotated[
        Path | None,
        typer.Option(
            help=f"Also write a sheet of the first {_SHEET_ROWS} images with at least {_MIN_SHEET_DRAWS} LR versions."
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing images and the contact sheet.")
    ] = False,
) -> None:
    """Make LR images by random blur, resize, noise and JPEG, as in BSRGAN and Real-ESRGAN.

    The LR image of a.png is ax4.png at scale 4; a recipe with data.kind: pairs finds it by this name.

    All parameters are saved to degradations.jsonl in the output folder.

    The result depends on the image, its name and the seed only, not on other files.
    """
    from selfsr.console import progress_bar
    from selfsr.degrade.contact_sheet import write_contact_sheet
    from selfsr.degrade.files import degrade_files, plan_jobs

    degradation, scale = _select_degradation(preset, recipe, scale)
    if contact_sheet is not None:
        _check_contact_sheet(contact_sheet, folder, output, overwrite=overwrite)
    jobs = plan_jobs(folder, output, scale=scale, per_image=per_image, overwrite=overwrite)
    left_out = describe_left_out([folder])
    with progress_bar(f"Degrading {folder}", len(jobs)) as advance:
        result = degrade_files(jobs, output, degradation, scale=scale, seed=seed, advance=advance)
    typer.echo(f"{result.written:,} of {len(jobs):,} images written to {output}.")
    print_left_out(left_out, result.further_frames)
    for sentence in result.failures[:20]:
        typer.echo(f"selfsr: {sentence}", err=True)
    if contact_sheet is not None:
        sheet_images = list(dict.fromkeys((job.source, job.name) for job in jobs))[:_SHEET_ROWS]
        draws = min(max(per_image, _MIN_SHEET_DRAWS), 8)
        write_contact_sheet(contact_sheet, sheet_images, degradation, scale=scale, seed=seed, draws=draws)
        typer.echo(f"Contact sheet: {contact_sheet}")
    if result.failures:
        typer.echo(f"selfsr: {len(result.failures):,} of {len(jobs):,} images failed.", err=True)
        raise typer.Exit(1)


def _check_contact_sheet(sheet: Path, folder: Path, output: Path, *, overwrite: bool) -> None:
    """Check that the contact sheet replaces no file and is outside of the images, where a later call would read it."""
    from selfsr.errors import InputError
    from selfsr.images.files import check_format
    from selfsr.images.paths import is_inside

    check_format(sheet, height=1, width=1, bits=8, alpha=False)
    if is_inside(sheet, folder) and not (is_inside(output, folder) and is_inside(sheet, output)):
        raise InputError(f"degrade: expected a contact sheet outside of {folder}, got {sheet}; write it elsewhere.")
    if sheet.exists() and not overwrite:
        raise InputError(
            f"degrade: --contact-sheet: expected a new file, got {sheet}, which exists; choose another name, or add "
            "--overwrite."
        )


def _select_degradation(preset: str | None, recipe: Path | None, scale: int | None) -> "tuple[PresetSpec, int]":
    """Return the degradation and the scale that the options select."""
    from selfsr.degrade.presets import PRESETS, get_preset
    from selfsr.errors import InputError
    from selfsr.recipe import load_recipe

    if (preset is None) == (recipe is None):
        got = "none" if preset is None else "both"
        raise InputError(
            f"degrade: expected exactly one of --preset and --recipe, got {got}; presets are {', '.join(PRESETS)}."
        )
    if preset is not None:
        return get_preset(preset), scale or 4
    assert recipe is not None
    loaded = load_recipe(recipe)
    degradation = getattr(loaded.data, "degrade", None)
    if degradation is None:
        raise InputError(f"degrade: expected data.degrade in {recipe}, got bicubic LR; pass a preset with --preset.")
    if scale not in loaded.scales and (scale is not None or len(loaded.scales) > 1):
        scales, got = " or ".join(map(str, loaded.scales)), "none" if scale is None else scale
        raise InputError(f"degrade: expected a scale of {recipe}, {scales}, got {got}; pass it with --scale.")
    return degradation, min(loaded.scales) if scale is None else scale

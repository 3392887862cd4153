"""`selfsr export`."""

import typer

from selfsr.cli.export_options import (
    AuthorOption,
    BaseOption,
    CardOption,
    DescriptionOption,
    ExportDataOption,
    ExportedModelArgument,
    ExportMetricOption,
    ExportScaleOption,
    FixedSizeOption,
    ImagesOption,
    KohyaOption,
    LicenseOption,
    MergeOption,
    NameOption,
    OnnxHalfOption,
    OnnxOption,
    OpsetOption,
    OutputOption,
    OverwriteOption,
    PrecisionOption,
    PthOption,
    TagOption,
    UrlOption,
)
from selfsr.cli.messages import print_last_weights
from selfsr.cli.options import DeviceOption, refuse_unused

EPILOG = """[bold]Examples[/bold]

selfsr export runs/waves -o waves --name 4x-waves --author Jane --license CC-BY-4.0 --tag photo --images photos

selfsr export best.safetensors -o waves --name 4x-waves --precision float16 --onnx --card card.yaml

selfsr export runs/one_step -o one_step --kohya      (a model on a pretrained base)

selfsr export photo_x4 -o photo --name 4x-photo --data Set5 --author Jane --license Apache-2.0

[bold]Files[/bold]

NAME.safetensors, NAME_fp16.safetensors, NAME_bf16.safetensors, NAME.pth and NAME_fp32.onnx are each compared with the
network in float32, at several sizes. README.md is the card. NAME.json is the entry for OpenModelDB; it needs an author.
Paths in the metadata have only their last component.

A model on a pretrained base becomes a model folder: selfsr.json, the adapters by diffusers' names, and the prompt
embeddings, without the base. Every command opens it as a model."""

# Options that do nothing for a model folder.
_OF_FILES = (
    "name", "precision", "pth", "onnx", "onnx_half", "opset", "fixed_size", "tag", "description", "url", "images",
    "data", "metric", "device",
)  # fmt: skip


def export(
    context: typer.Context,
    model: ExportedModelArgument,
    output: OutputOption,
    name: NameOption = None,
    precision: PrecisionOption = None,
    pth: PthOption = False,
    onnx: OnnxOption = False,
    onnx_half: OnnxHalfOption = False,
    opset: OpsetOption = 17,
    fixed_size: FixedSizeOption = None,
    card: CardOption = None,
    author: AuthorOption = None,
    license: LicenseOption = None,
    tag: TagOption = None,
    description: DescriptionOption = None,
    url: UrlOption = None,
    images: ImagesOption = None,
    data: ExportDataOption = None,
    metric: ExportMetricOption = None,
    scale: ExportScaleOption = None,
    overwrite: OverwriteOption = False,
    device: DeviceOption = "auto",
    base: BaseOption = None,
    kohya: KohyaOption = False,
    merge: MergeOption = False,
) -> None:
    """Write a model for others: weights files, ONNX, a README with sample images, and an entry for OpenModelDB."""
    from selfsr.console import print_line
    from selfsr.errors import InputError
    from selfsr.evaluation.sets import find_sets
    from selfsr.images.paths import list_images
    from selfsr.machine.device import choose_device
    from selfsr.models.card_options import read_card_options
    from selfsr.models.export import ExportOptions, export_model, read_precisions
    from selfsr.models.model_folder import FolderOptions, export_folder, has_pretrained_base
    from selfsr.nets.weights.find import find_model

    source = find_model(model)
    print_last_weights(str(model), source)
    if has_pretrained_base(source):
        refuse_unused(context, *_OF_FILES, reason="for a model on a pretrained base, which becomes a model folder")
        stated = read_card_options(card, author=tuple(author or ()), license=license)
        choices = FolderOptions(base=base, scale=scale, kohya=kohya, merge=merge, overwrite=overwrite)
        for note in export_folder(source, output, stated, choices, report=typer.echo):
            print_line(note)
        typer.echo(f"Wrote the model folder {output}; open it with: selfsr upscale PHOTO -m {output}")
        return
    refuse_unused(context, "base", "kohya", "merge", reason="for a model without a pretrained base")
    if name is None:
        raise InputError("export: expected --name for the files, such as 4x-waves, got none; add it.")
    if not (onnx or onnx_half):
        refuse_unused(context, "opset", "fixed_size", reason="without --onnx")
    if not data:
        refuse_unused(context, "metric", reason="without --data")
    options = ExportOptions(
        precisions=read_precisions(precision or ("float32", "float16")),
        pth=pth,
        onnx=(("float32",) if onnx else ()) + (("float16",) if onnx_half else ()),
        opset=opset,
        fixed_px=fixed_size,
        scale=scale,
        sets=find_sets(data or ()),
        metrics=metric or (),
        photos=list_images(images) if images is not None else (),
        overwrite=overwrite,
    )
    stated = read_card_options(
        card,
        author=tuple(author or ()),
        license=license,
        tags=tuple(dict.fromkeys(tag or ())),
        description=description,
        url=url,
    )
    done = export_model(model, output, name, stated, options, device=choose_device(device), report=typer.echo)
    for note in done.notes:
        print_line(note)
    typer.echo(f"Wrote {len(done.written)} files to {output}; the card is {output / 'README.md'}")

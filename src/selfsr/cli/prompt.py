"""`selfsr prompt`."""

from pathlib import Path
from typing import Annotated

import typer

EPILOG = """[bold]Examples[/bold]

selfsr prompt stable-diffusion-2-1-base -o prompt.safetensors

selfsr prompt stable-diffusion-2-1-base -o prompt.safetensors --text "a sharp photo" --negative "blurry, noisy"

[bold]Afterwards[/bold]

The file replaces the text encoder: name it in a recipe as network.prompt_file. Then training and upscaling need neither
the folders text_encoder and tokenizer nor the package transformers. Weights files contain the embeddings."""


def prompt(
    base: Annotated[
        Path, typer.Argument(help="Model folder of diffusers with text_encoder and tokenizer, such as that of SD 2.1.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write the embeddings into, .safetensors.")],
    text: Annotated[str, typer.Option(help="Prompt that the base gets with every image; an empty one is usual.")] = "",
    negative: Annotated[
        str | None,
        typer.Option(
            help="Negative prompt, from which classifier-free guidance moves away; may be empty. Needed only with "
            "guidance."
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
) -> None:
    """Write the embeddings of a prompt, so that a pretrained diffusion model needs no text encoder."""
    from selfsr.errors import InputError
    from selfsr.fileio import check_writable
    from selfsr.nets.diffusion.prompt import encode_prompt

    if output.suffix != ".safetensors" or output.is_dir():
        raise InputError(f"prompt: expected a .safetensors file for --output, got {output}; choose another name.")
    if output.exists() and not overwrite:
        raise InputError(f"prompt: expected a new file, got {output}, which exists; add --overwrite.")
    check_writable(output)
    places = ("--text", "--negative")
    embeddings = encode_prompt(base.expanduser(), text, negative, place=f"prompt {base}", places=places)
    texts = {"text": text} | ({} if negative is None else {"negative": negative})
    embeddings.save(output, texts)
    tokens, features = embeddings.embedding.shape
    described = " and ".join(f"{name} {words!r}" for name, words in texts.items())
    typer.echo(
        f"Wrote {output}: {described}, {tokens} tokens of {features} features each. Recipes take it as "
        f"network.prompt_file, and need no text encoder with it."
    )

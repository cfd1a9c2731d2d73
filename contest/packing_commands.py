"""`contest pack` and `contest unpack`: a model file as bit-packed codes and bitmasks, and back."""

from __future__ import annotations

from pathlib import Path

import click

from contest.errors import UsageError

SUFFIX = ".packed"


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="The packed file (default: MODEL with .packed).")
def pack(model: Path, out: Path | None) -> None:
    """Write MODEL (.pt or .safetensors) bit-packed: nonzero codes at their bits behind bitmasks."""
    from rich.console import Console

    from contest.model_file import load, packing

    target = out or model.with_suffix(SUFFIX)
    if target == model:
        raise UsageError(f"{target} is the model file itself; give another name with --out")
    size = packing.pack(load(model), target, model=model)
    Console().print(
        f"{target}: {size.payload_bytes:,} bytes of numbers and bitmasks ({size.payload_bytes / 4:,.0f} parameters of "
        f"32 bits), {size.header_bytes:,} bytes of header; {model.name} has {model.stat().st_size:,}",
        soft_wrap=True,
    )


@click.command()
@click.argument("packed", type=click.Path(path_type=Path))
@click.option(
    "--out", type=click.Path(path_type=Path), help="A .pt or .safetensors file (default: PACKED with the old ending)."
)
def unpack(packed: Path, out: Path | None) -> None:
    """Write the network of a PACKED file as a model file again, and say whether it is the same file byte for byte."""
    from rich.console import Console

    from contest.model_file import packing

    written, same = packing.unpack_file(packed, out)
    other = "the identical network (the packed file had other bytes: another ending, or another version wrote it)"
    what = "the very file that was packed" if same else other
    Console().print(f"{written}: {what}", soft_wrap=True, highlight=False, markup=False)

"""Declare the options of glesam-run, other than those of the engine and of everything-mode.

glesam-serve takes some of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glesam_runtime.errors import InputError
from glesam_runtime.input_paths import exists
from glesam_runtime.sample_depth import Depth
from glesam_runtime.tiling.sides import check_tiles

# No numpy here: the command line reads the options for its --help.
if TYPE_CHECKING:
    from glesam_runtime.enhancing import Mode

_PROMPTS, _OUTPUT, _TILES, _VIDEO = "Prompts", "Output", "Large images", "Video"

PromptBatchSize = Annotated[
    int | None,
    typer.Option(
        min=1,
        metavar="N",
        rich_help_panel=_PROMPTS,
        help="Maximum number of prompts per decoder call. Default: 8 on a CPU, else 64.",
    ),
]


class When(Enum):
    """The values of --enhance."""

    AUTO = "auto"
    ALWAYS = "always"
    NEVER = "never"


_MODES: Mapping[When | None, Mode | None] = {
    None: None,
    When.AUTO: "auto",
    When.ALWAYS: True,
    When.NEVER: False,
}


@dataclass(frozen=True)
class EnhanceOptions:
    """Which images to enhance, and how."""

    enhance: Annotated[
        When | None,
        typer.Option(
            help="auto: enhance an image if the bundle's gate estimates a gain. always: every "
            "image. never: none, which runs plain SAM. Default: auto for a bundle with a gate, "
            "else always.",
            show_default=False,
        ),
    ] = None
    no_enhance: Annotated[bool, typer.Option("--no-enhance", help="Same as --enhance never.")] = (
        False
    )
    timestep: Annotated[
        int | None,
        typer.Option(
            metavar="T",
            help="Timestep that the enhancer runs, for a bundle with several. Default: the "
            "bundle's own.",
        ),
    ] = None

    def mode(self) -> Mode | None:
        """Return the argument `enhance` of a predictor.

        Raises:
            InputError: the options contradict each other.
        """
        if not self.no_enhance:
            return _MODES[self.enhance]
        if self.enhance not in (None, When.NEVER):
            raise InputError(
                f"--no-enhance contradicts --enhance {self.enhance.value}; leave out one of them"
            )
        return False


@dataclass(frozen=True)
class ImageOptions:
    """Which images to read, and how."""

    images: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="IMAGES",
            help="Image files, folders, patterns such as 'scans/*.jpg' in quotes, or - for one "
            "image from standard input.",
        ),
    ] = None
    recursive: Annotated[
        bool,
        typer.Option("--recursive", "-r", help="Also take the images in subfolders of a folder."),
    ] = False
    depth: Annotated[
        Depth,
        typer.Option(
            help="Bits that the samples of 16-bit gray images use. auto takes the tags of a TIFF, "
            "otherwise 16."
        ),
    ] = Depth.AUTO


@dataclass(frozen=True)
class TileOptions:
    """How to cut large images into tiles."""

    tile: Annotated[
        int | None,
        typer.Option(
            min=1,
            metavar="PIXELS",
            rich_help_panel=_TILES,
            help="Segment images in overlapping tiles of this side, without holding an image in "
            "memory if its file can be read in parts. Default: the whole image at once.",
        ),
    ] = None
    overlap: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="PIXELS",
            rich_help_panel=_TILES,
            help="Pixels that neighbouring tiles share at least. Default: an eighth of --tile.",
        ),
    ] = None

    def sides(self) -> tuple[int, int] | None:
        """Return the side of a tile and the overlap, or None without `--tile`.

        Raises:
            InputError: `--overlap` is given alone, or the tiles cannot cover an image.
        """
        if self.tile is None:
            if self.overlap is not None:
                raise InputError("--overlap requires --tile: add it, or leave out --overlap")
            return None
        overlap = self.tile // 8 if self.overlap is None else self.overlap
        check_tiles(self.tile, overlap)
        return self.tile, overlap


@dataclass(frozen=True)
class PromptOptions:
    """What to segment."""

    points: Annotated[
        list[str] | None,
        typer.Option(
            "--points",
            metavar="X,Y[,LABEL]",
            rich_help_panel=_PROMPTS,
            help="Add a point to the prompt, in pixels. Label 1 (default) marks the object, 0 the "
            "background. Repeatable; all points refine one object.",
        ),
    ] = None
    box: Annotated[
        list[str] | None,
        typer.Option(
            "--box",
            metavar="X0,Y0,X1,Y1",
            rich_help_panel=_PROMPTS,
            help="Prompt with a box, in pixels. Repeatable; each box is a separate object. With "
            "--points, give one box at most: both belong to one object.",
        ),
    ] = None
    prompts: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            rich_help_panel=_PROMPTS,
            help="Also read prompts from this JSON file, or - for standard input: an array of "
            "{points, labels, box}, or the results of one image from --json.",
        ),
    ] = None
    multimask: Annotated[
        bool,
        typer.Option(
            "--multimask",
            rich_help_panel=_PROMPTS,
            help="Return three masks per prompt. Default: one mask (in Python, "
            "predict returns three by default, as segment_anything does).",
        ),
    ] = False
    prompt_batch: PromptBatchSize = None

    @property
    def given(self) -> bool:
        """Return whether there is a prompt."""
        return bool(self.points or self.box or self.prompts)


@dataclass(frozen=True)
class VideoOptions:
    """A video in place of images."""

    video: Annotated[
        str | None,
        typer.Option(
            "--video",
            metavar="FILE|DEVICE",
            rich_help_panel=_VIDEO,
            help="Follow the objects of --points or --box, which are prompts for the first frame, "
            "through a video file or a camera such as /dev/video0. Requires the extra video.",
        ),
    ] = None
    frames: Annotated[
        int | None,
        typer.Option(
            "--frames",
            min=1,
            metavar="N",
            rich_help_panel=_VIDEO,
            help="Stop after N frames of the video. Required for a camera. Default: all frames.",
        ),
    ] = None

    def check(self, excluded: Mapping[str, object]) -> None:
        """Refuse options that do not go together with --video.

        Args:
            excluded: the values of such options by their names; a value that is true was given.

        Raises:
            InputError: naming the options.
        """
        if self.video is None:
            if self.frames is not None:
                raise InputError("--frames requires --video; leave it out")
            return
        for name, given in excluded.items():
            if given:
                raise InputError(f"--video and {name} exclude each other; leave out one")


@dataclass(frozen=True)
class OutputOptions:
    """What to write and print."""

    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="DIR",
            rich_help_panel=_OUTPUT,
            help="Folder for the results. Default: the current folder.",
        ),
    ] = None
    json: Annotated[
        bool,
        typer.Option(
            "--json",
            rich_help_panel=_OUTPUT,
            help="Print one JSON document instead of text, with each mask as COCO RLE.",
        ),
    ] = False
    no_files: Annotated[
        bool,
        typer.Option(
            "--no-files", rich_help_panel=_OUTPUT, help="Write no files; requires --json."
        ),
    ] = False

    @property
    def folder(self) -> Path:
        """Return the folder for the results."""
        return self.output or Path()

    def check(self) -> None:
        """Refuse options that contradict each other, and a file as output folder.

        Raises:
            InputError: naming the option.
        """
        if self.no_files and not self.json:
            raise InputError(
                "--no-files requires --json, because nothing else would show the masks; add it, or "
                "leave out --no-files"
            )
        if self.no_files and self.output is not None:
            raise InputError(f"-o {self.output}: --no-files writes nothing; leave out one of them")
        if exists(self.folder) and not self.folder.is_dir():
            raise InputError(f"-o {self.folder}: is a file, a folder is needed")

"""Read the frames of a video file or camera, and write a video, with PyAV (the extra `video`)."""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from glesam_runtime.errors import InputError
from glesam_runtime.input_paths import exists, refuse_named_fifo
from glesam_runtime.limits import check_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

_DEFAULT_RATE = Fraction(25)
"""Frames per second of the output if the input does not say its own."""
_CAMERA_FORMATS = {"linux": "v4l2"}
"""FFmpeg's input format for cameras, by `sys.platform`."""
_QUALITY = {"crf": "18", "preset": "veryfast"}


@dataclass
class VideoReader:
    """An open video."""

    name: str
    """The path, for messages."""
    height: int
    width: int
    rate: Fraction
    """Frames per second."""
    expected: int | None
    """Number of frames as the file says it; None if it does not."""
    broken: str | None = field(default=None, init=False)
    """Why the video ended early, known after the last frame; None if it did not."""
    _container: Any = field(repr=False, default=None)
    _stream: Any = field(repr=False, default=None)

    def frames(self, limit: int | None = None) -> Iterator[tuple[float, NDArray[np.uint8]]]:
        """Yield the time in seconds and the pixels [H, W, 3], RGB, of each frame.

        A video that breaks off ends the iteration, and `broken` says why. A frame of another size
        does so too.

        Args:
            limit: maximum number of frames.
        """
        import av

        count = 0
        try:
            for frame in self._container.decode(self._stream):
                if count == limit:
                    return
                if (frame.height, frame.width) != (self.height, self.width):
                    self.broken = (
                        f"frame {count} has {frame.width} x {frame.height} pixels, but the frames "
                        f"before have {self.width} x {self.height}"
                    )
                    return
                time = frame.time if frame.time is not None else float(count / self.rate)
                yield float(time), frame.to_ndarray(format="rgb24")
                count += 1
        except av.error.FFmpegError as error:
            self.broken = f"frame {count} cannot be decoded ({error.strerror})"
            return
        if self.expected is not None and count < self.expected and count != limit:
            self.broken = f"it ends after {count} of {self.expected} frames"


@contextmanager
def open_video(name: str, limit: int | None = None) -> Iterator[VideoReader]:
    """Open a video file, or a camera such as /dev/video0.

    Args:
        name: the file or the device.
        limit: the maximum number of frames that will be read; a camera needs one.

    Raises:
        InputError: PyAV is not installed, the path does not exist, it is not a video, or a camera
            has no limit.
    """
    try:
        import av
    except ImportError as error:
        raise InputError(
            "--video: needs PyAV, which is not installed; run: pip install 'glesam-runtime[video]'"
        ) from error
    path = Path(name)
    if not exists(path):
        kind = "device" if name.startswith("/dev/") else "file"
        raise InputError(f"{name}: no such {kind}")
    if path.is_dir():
        raise InputError(f"{name}: is a folder; name a video file or a camera such as /dev/video0")
    refuse_named_fifo(path)
    options: dict[str, str] = {}
    camera = None
    if is_device(path):
        camera = _CAMERA_FORMATS.get(sys.platform)
        if camera is None:
            raise InputError(f"{name}: cameras are supported on Linux only; name a video file")
        if limit is None:
            raise InputError(f"{name}: a device, which has no end; add --frames N")
        url = name
    else:
        # Without the prefix a name such as http:x is an address. A playlist may name files only.
        url, options = f"file:{name}", {"protocol_whitelist": "file"}
    try:
        container = av.open(url, format=camera, options=options)
    except (av.error.FFmpegError, OSError) as error:
        what = "cannot be opened as a camera" if camera else "is not a video that FFmpeg can read"
        raise InputError(f"{name}: {what} ({error.strerror})") from error
    with container:
        yield _reader(name, container)


def is_device(path: Path) -> bool:
    """Return whether a path is a device, such as a camera, which has no end."""
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _reader(name: str, container: Any) -> VideoReader:
    """Describe the first video stream of a container.

    Raises:
        InputError: there is none, or its size is unknown or too large.
    """
    if not container.streams.video:
        raise InputError(f"{name}: holds no video stream")
    stream = container.streams.video[0]
    width, height = stream.codec_context.width, stream.codec_context.height
    if not (width and height):
        raise InputError(f"{name}: is not a video that FFmpeg can read (no size)")
    check_picture(width, height, name)
    rate = Fraction(stream.average_rate or stream.guessed_rate or _DEFAULT_RATE)
    return VideoReader(
        name=name,
        height=height,
        width=width,
        rate=rate if 0 < rate <= 1000 else _DEFAULT_RATE,
        expected=_expected(stream, rate),
        _container=container,
        _stream=stream,
    )


def _expected(stream: Any, rate: Fraction) -> int | None:
    """Return the number of frames that a stream says it has, by count or by duration."""
    if stream.frames > 0:
        return int(stream.frames)
    text = stream.metadata.get("DURATION", "")  # of Matroska: 00:00:10.000000000
    try:
        hours, minutes, seconds = text.split(":")
        duration = 3600 * int(hours) + 60 * int(minutes) + Fraction(seconds)
    except ValueError:
        return None
    # The duration may lack the last frame's, and rates may vary.
    return max(0, int(duration * rate) - 2)


class VideoWriter:
    """Writes frames as H.264 in MP4."""

    def __init__(self, path: Path, height: int, width: int, rate: Fraction) -> None:
        """Open the file.

        H.264 with 4:2:0 colour has even sides: an odd side gets one more row or column, which
        repeats the last.

        Args:
            path: the file; its name may have any ending.
            height: height of the frames in pixels.
            width: width of the frames in pixels.
            rate: frames per second.
        """
        import av

        self._container: Any = av.open(str(path), "w", format="mp4")
        self._stream: Any = self._container.add_stream("libx264", rate=rate, options=_QUALITY)
        self._stream.height, self._stream.width = height + height % 2, width + width % 2
        self._stream.pix_fmt = "yuv420p"
        self._padding = ((0, height % 2), (0, width % 2), (0, 0))

    def write(self, image: NDArray[np.uint8]) -> None:
        """Append a frame [H, W, 3], RGB."""
        import av

        frame = av.VideoFrame.from_ndarray(np.pad(image, self._padding, "edge"), format="rgb24")
        self._container.mux(self._stream.encode(frame))

    def finish(self) -> None:
        """Write what the encoder still holds, and close the file."""
        self._container.mux(self._stream.encode(None))
        self._container.close()

    def abandon(self) -> None:
        """Close the file after an error."""
        self._container.close()

"""One image: files, decoding, color, resizing."""

from selfsr.images.resize import imresize

__all__ = ["imresize"]

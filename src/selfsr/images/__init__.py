"""Images: files, decoding, color and resizing."""

from selfsr.images.resize import imresize

__all__ = ["imresize"]

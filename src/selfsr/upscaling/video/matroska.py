"""A stream of raw frames with time stamps, in Matroska (RFC 9559): ffmpeg reads it from a pipe.

Raw frames without a container have a constant rate; this stream is for videos with a variable rate.
"""

# IDs of elements (RFC 9559, section 5).
_EBML, _DOC_TYPE, _DOC_TYPE_VERSION, _DOC_TYPE_READ_VERSION = 0x1A45DFA3, 0x4282, 0x4287, 0x4285
_SEGMENT, _INFO, _TIMESTAMP_SCALE, _APP = 0x18538067, 0x1549A966, 0x2AD7B1, (0x4D80, 0x5741)
_TRACKS, _TRACK, _NUMBER, _UID, _TYPE, _CODEC = 0x1654AE6B, 0xAE, 0xD7, 0x73C5, 0x83, 0x86
_VIDEO, _WIDTH, _HEIGHT, _COLOR_SPACE = 0xE0, 0xB0, 0xBA, 0x2EB524
_CLUSTER, _TIMESTAMP, _GROUP, _BLOCK, _DURATION = 0x1F43B675, 0xE7, 0xA0, 0xA1, 0x9B
_UNKNOWN_SIZE = b"\x01" + b"\xff" * 7
_NS_PER_TICK = 1000


def encode_header(height: int, width: int, bits: int) -> bytes:
    """Return the start of a stream with one track of RGB frames.

    Args:
        height: rows of each frame.
        width: columns of each frame.
        bits: 8 or 16 per sample; 16 are little-endian.
    """
    video = _element(_WIDTH, _integer(width)) + _element(_HEIGHT, _integer(height))
    video += _element(_COLOR_SPACE, b"RGB" + bytes([3 * bits]))  # the code of ffmpeg for such frames
    track = _element(_NUMBER, b"\1") + _element(_UID, b"\1") + _element(_TYPE, b"\1")
    track += _element(_CODEC, b"V_UNCOMPRESSED") + _element(_VIDEO, video)
    info = _element(_TIMESTAMP_SCALE, _integer(_NS_PER_TICK)) + b"".join(_element(tag, b"selfsr") for tag in _APP)
    kind = (
        _element(_DOC_TYPE, b"matroska") + _element(_DOC_TYPE_VERSION, b"\4") + _element(_DOC_TYPE_READ_VERSION, b"\2")
    )
    start = _element(_EBML, kind) + _SEGMENT.to_bytes(4, "big") + _UNKNOWN_SIZE
    return start + _element(_INFO, info) + _element(_TRACKS, _element(_TRACK, track))


def encode_frame_header(time_us: int, duration_us: int, size: int) -> bytes:
    """Return the bytes before the samples of a frame.

    Args:
        time_us: when it is shown, in microseconds from 0 on.
        duration_us: how long.
        size: bytes of the samples.
    """
    block = b"\x81\0\0\0"  # track 1, at the time of the cluster
    group = _element(_DURATION, _integer(duration_us)) + _BLOCK.to_bytes(1, "big") + _size(len(block) + size) + block
    time = _element(_TIMESTAMP, _integer(time_us)) + _GROUP.to_bytes(1, "big") + _size(len(group) + size)
    return _CLUSTER.to_bytes(4, "big") + _size(len(time) + len(group) + size) + time + group


def _element(tag: int, content: bytes) -> bytes:
    return tag.to_bytes((tag.bit_length() + 7) // 8, "big") + _size(len(content)) + content


def _size(count: int) -> bytes:
    return (count | 1 << 56).to_bytes(8, "big")


def _integer(value: int) -> bytes:
    return value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")

"""Upscale videos: frames through pipes of ffmpeg, and the sound unchanged."""

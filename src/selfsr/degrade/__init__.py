"""Degrade HR to LR as cameras, editors and networks do, instead of bicubic downscaling.

A recipe names a degradation by its preset (`degrade: bsrgan_ssl`) or changes some of its numbers
(`degrade: {kind: bsrgan, preset: bsrgan_ssl, jpeg_quality: [60, 95]}`). docs/degradations.md describes the processes,
the numbers of the presets, and the differences from the published code.
"""

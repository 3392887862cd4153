"""Degradations: HR to LR as cameras, editors and networks do it, in place of bicubic.

A recipe names one by its preset (`degrade: bsrgan_ssl`) or changes some of its numbers
(`degrade: {kind: bsrgan, preset: bsrgan_ssl, jpeg_quality: [60, 95]}`). docs/degradations.md has the processes, the
presets' numbers and what is done differently from the published codes.
"""

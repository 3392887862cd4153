"""Devices, processes and memory of this machine, and the packages on it."""

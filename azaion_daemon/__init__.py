"""Turns a stream of human annotations into better detection models, unattended."""

__version__ = "0.1.0"

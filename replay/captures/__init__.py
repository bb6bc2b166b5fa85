"""Captures: one file each; the file's name is the capture's name."""

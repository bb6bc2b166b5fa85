"""The one place that states the version of the distribution `dirtyreplay`."""

__version__ = "0.1.0"

"""Versions of QEMU, where they make a migration take another course.

| | 7.2 | 9.x | 10.0 | 10.2 |
|---|---|---|---|---|
| the window's bytes are counted when they are | queued | flushed | flushed | flushed |
| switch over when what is pending is | below the threshold | below | below | at most the threshold |
| auto-converge syncs a long round every 5 s | no | no | yes | yes |
| a switch to postcopy is considered | after completion | after | after | before |
| `transferred` counts | RAM pages | the stream | the stream | the stream |

Source: measured on migrations of 7.2.22 and 10.0.2 (windows of 6,000,066 and 6,041,106 bytes at 60 MB/s); the others by
the described behaviour of their sources.
"""

from __future__ import annotations

from dataclasses import dataclass

from replay.errors import unknown_name


@dataclass(frozen=True, kw_only=True)
class Version:
    """What differs."""

    name: str
    limit_counts_queued: bool
    complete_at_threshold: bool
    background_sync: bool
    transferred_is_ram: bool
    postcopy_before_completion: bool


def _version(name: str, queued: bool, at_threshold: bool, background: bool, ram: bool) -> Version:
    return Version(
        name=name,
        limit_counts_queued=queued,
        complete_at_threshold=at_threshold,
        background_sync=background,
        transferred_is_ram=ram,
        postcopy_before_completion=at_threshold,
    )


VERSIONS = {
    version.name: version
    for version in (
        _version("7.2", True, False, False, True),
        _version("9.x", False, False, False, False),
        _version("10.0", False, False, True, False),
        _version("10.2", False, True, True, False),
    )
}
NAMES = tuple(VERSIONS)
DEFAULT = "10.0"


def nearest(text: str) -> str:
    """The modelled version for a full version number such as 10.0.13: the newest that is not newer.

    Raises UsageError for text that is no version number.
    """
    try:
        major, minor = (int(part) for part in [*text.split("."), "0"][:2])
    except ValueError:
        raise unknown_name("QEMU version", text, NAMES) from None
    if major < 9:
        return "7.2"
    if major < 10:
        return "9.x"
    return "10.2" if (major, minor) >= (10, 1) else "10.0"

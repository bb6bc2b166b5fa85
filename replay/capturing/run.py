"""A capture from end to end: check what can be checked before anything starts, record, put the trace into place."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from replay import plugins
from replay.capturing.options import Options
from replay.capturing.recorder import Progress, Recorder, settings
from replay.capturing.stop import Stop
from replay.errors import TraceError, UsageError
from replay.trace.reader import Trace, open_trace


@dataclass(frozen=True)
class Captured:
    """What a capture made. `ended`: "end", "duration" or "interrupted"; `exit_code`: of the recorded program."""

    path: Path
    kind: str
    trace: Trace
    ended: str
    exit_code: int

    def to_plain(self) -> dict[str, Any]:
        """What `replay capture --json` prints."""
        return {
            "path": str(self.path),
            "kind": self.kind,
            "ended": self.ended,
            "exit_code": self.exit_code,
            "digest": self.trace.digest,
            "n_events": self.trace.n_events,
            **self.trace.metadata.to_plain(),
        }


def capture(
    plugin: plugins.Plugin,
    output: str | os.PathLike[str],
    command: Sequence[str],
    options: Options,
    *,
    announce: Callable[[list[str]], None] | None = None,
    progress: Progress | None = None,
    stop: Stop | None = None,
    to_stderr: bool = False,
) -> Captured:
    """Record into `output`. Raises UsageError and TraceError; then there is no file, and nothing was left changed."""
    path = Path(output)
    _check_output(path)
    _check_command(plugin, command)
    ending = stop or Stop()
    ending.duration_ns = ending.duration_ns or options.duration
    recorder = Recorder(path, plugin.name, list(command), options, ending, progress)
    recorder.to_stderr = to_stderr
    recorder.facts.notes["settings"] = settings(plugin.config)
    if announce is not None:
        announce(plugin.module.describe(plugin.config, list(command)))
    try:
        with ending.listening():
            plugin.module.capture(plugin.config, recorder)
            ended = ending.reason
            recorder.close()
    except OSError as error:
        recorder.abandon()
        raise TraceError(f"capture {plugin.name}: {error.strerror or error}") from error
    except BaseException:
        recorder.abandon()
        raise
    finally:
        if stop is None:
            ending.close()
    return Captured(path, plugin.name, open_trace(path), ended, recorder.exit_code)


def _check_command(plugin: plugins.Plugin, command: Sequence[str]) -> None:
    """COMMAND of a plug-in is "none", "required" or "optional"; its `ready(config, command)` raises where it cannot."""
    wanted = getattr(plugin.module, "COMMAND", "none")
    if wanted == "required" and not command:
        raise UsageError(f"capture {plugin.name}: no command given; write it after --, as in -- sort big.txt")
    if wanted == "none" and command:
        raise UsageError(f"capture {plugin.name} takes no command: {command[0]!r} would not be run")
    ready = getattr(plugin.module, "ready", None)
    if ready is not None:
        ready(plugin.config, list(command))


def _check_output(path: Path) -> None:
    """Before anything starts: a capture cannot be repeated at will."""
    if path.is_dir():
        raise TraceError(f"{path}: cannot be written: it is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise TraceError(f"{path}: cannot be written: there is no folder {path.parent}")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise TraceError(f"{path}: cannot be written: no permission to create files in {path.parent}")

"""The process that explores when the caller's has compiled kernels: a request on standard input, lines of JSON out."""

from __future__ import annotations

import json
import sys
from typing import Any

from replay.errors import ReplayError, UsageError
from replay.safety.check import Request, check


def main() -> None:
    """Answer one request; progress, then a verdict or an error."""

    def say(**message: Any) -> None:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()

    try:
        request = Request(**json.loads(sys.stdin.read()))
        verdict = check(request, lambda what, states: say(what=what, states=states))
        say(verdict=verdict.as_dict())
    except ReplayError as error:
        say(error=str(error), usage=isinstance(error, UsageError))
    except KeyboardInterrupt:
        pass


if __name__ == "__main__":
    main()

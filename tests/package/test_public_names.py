"""What `import replay` offers is what replay.api has; both say it, and neither more than the other."""

from __future__ import annotations

import replay
from replay import api


def test_replay_offers_what_its_api_does():
    assert set(replay.__all__) == {*api.__all__, "__version__"}
    assert all(getattr(replay, name) is getattr(api, name) for name in api.__all__)

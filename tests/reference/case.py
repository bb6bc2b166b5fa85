"""What the reference replays, and how it counts words."""

from __future__ import annotations

from dataclasses import dataclass, field

MS = 1_000_000_000  # picoseconds
DMA, VHOST = -1, -2


def host_on(vcpu: int) -> int:
    """The writer of a write that the hypervisor makes on a vCPU's thread."""
    return -10 - vcpu


@dataclass
class Case:
    """One migration of a small guest. Times in ns, bandwidth in bytes a second."""

    n_pages: int
    n_vcpus: int
    events: list[tuple[int, int, int]]  # (t_ns, page, writer), ascending; writer: a vCPU, or as below
    duration_ns: int
    zero: set[int]
    log: str
    design: str
    max_bandwidth: int
    downtime_ms: int
    prices: dict[str, int]
    fixed: dict[str, int]
    fixed_bytes: dict[str, int]
    kring_entries: int = 1024
    kring_reserved: int = 576
    kring_repeats: bool = False  # the store that fills a ring is logged again
    reaper_ps: int = 10**12
    options: dict[str, int | str | bool] = field(default_factory=dict)  # of the design, by name
    n_blocks: int = 1
    loop: bool = True
    closed_loop: bool = True
    give_up_ns: int = 60_000_000_000
    start_ns: int = 0
    version: str = "10.0"
    auto_converge: tuple[int, int, int, bool, int] | None = None  # initial, increment, maximum, tailslow, trigger
    recorded_throttled: bool = False
    busy_pct: int = 100
    dirty_limit: tuple[int, int, int] | None = None  # quota in MiB/s, period in ms, trigger
    zero_detection: str = "legacy"
    mapped_ram: bool = False
    xbzrle: tuple[int, int, int] | None = None  # slots, share of deltas that fit in millionths, bytes of a delta


def words_of(pages: set[int]) -> int:
    return len({page // 64 for page in pages})


def span(first_page: int, last_page: int) -> int:
    """Words that a look from one page to another touches."""
    return last_page // 64 - first_page // 64 + 1

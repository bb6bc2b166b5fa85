"""Every piece of work that is counted, named once.

Kernels never read a clock: they add to one uint64 array that is indexed by the constants below. The same table names
the columns of the per-round record, documents them, and is what a cost table prices: modelled time is the sum of
count x price, in picoseconds, exact. Counters that may grow while a page is found and sent come first (`N_SEND` of
them), because that part is priced after every page.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Counter:
    """One kind of work: `name` is its column and its key in a cost table; `unit` and `meaning` are for people."""

    name: str
    unit: str
    meaning: str


_table: list[Counter] = []


def _counter(name: str, unit: str, meaning: str) -> int:
    _table.append(Counter(name, unit, meaning))
    return len(_table) - 1


# -- finding and sending a page ---------------------------------------------------------------------------------------
FIND_CALLS = _counter("find_calls", "calls", "searches for the next dirty page that may walk the whole map")
FIND_WORDS = _counter("find_words", "words", "words of the map that these searches looked at")
SUMMARY_WORDS = _counter("summary_words", "words", "words of a summary of the map that searches looked at")
REFIND_CALLS = _counter("refind_calls", "calls", "second searches, bounded to the host page just sent")
RING_POPS = _counter("ring_pops", "entries", "entries taken from the design's own queue")
STALE_POPS = _counter("stale_pops", "entries", "of these, entries whose page was not dirty any more")
BACKGROUND_POPS = _counter(
    "background_pops", "pages", "pages taken from the one pass over memory that replaces a bitmap"
)
BACKGROUND_SKIPS = _counter("background_skips", "pages", "pages that this pass left out, having been sent already")
TLB_RESETS = _counter("tlb_resets", "pages", "pages whose tracking was re-enabled when they were taken (TCG)")
RING_REFILLS = _counter("ring_refills", "entries", "entries queued by a scan of the map in the middle of a round")
PRODUCER_SENDS = _counter("producer_sends", "pages", "pages that the thread which dirtied them sent itself")
CLEAR_IOCTLS = _counter("clear_ioctls", "calls", "KVM_CLEAR_DIRTY_LOG calls, one a chunk of 2^18 pages")
CLEAR_WORDS = _counter("clear_words", "words", "words passed to these calls")
CLEAR_PAGES = _counter("clear_pages", "pages", "pages re-protected by these calls")
NORMAL_PAGES = _counter("normal_pages", "pages", "pages sent with their content")
ZERO_PAGES = _counter("zero_pages", "pages", "pages sent as nine bytes because they hold only zeros")
XBZRLE_PAGES = _counter("xbzrle_pages", "pages", "pages found in the cache of xbzrle and compared with what is there")
XBZRLE_SAME = _counter("xbzrle_same", "pages", "of these, pages that had not changed: nothing was sent")
XBZRLE_OVERFLOWS = _counter("xbzrle_overflows", "pages", "of these, pages sent whole because their delta did not fit")
XBZRLE_MISSES = _counter("xbzrle_misses", "pages", "pages with content that were not in the cache: sent whole")
N_SEND = len(_table)
MULTIFD_PACKETS = _counter("multifd_packets", "packets", "packets that left through multifd's channels")
POSTCOPY_PAGES = _counter("postcopy_pages", "pages", "pages sent after the switch to postcopy")
POSTCOPY_FAULTS = _counter(
    "postcopy_faults", "faults", "times a vCPU at the target touched a page that was missing there"
)
FLUSHES = _counter("flushes", "calls", "buffer flushes of the migration stream (their time is part of a page's)")
# -- sync: collecting from the dirty log ------------------------------------------------------------------------------
VCPU_KICKS = _counter("vcpu_kicks", "calls", "vCPUs forced to exit so that their log is complete")
LOG_IOCTLS = _counter("log_ioctls", "calls", "KVM_GET_DIRTY_LOG calls")
L0_WORDS = _counter("l0_words", "words", "words of the kernel's bitmap copied to user space")
KRING_REAPED = _counter("kring_reaped", "entries", "KVM ring entries harvested")
KRING_DUPLICATES = _counter("kring_duplicates", "entries", "of these, pages already set in the slot's bitmap")
KRING_RESETS = _counter("kring_resets", "calls", "KVM_RESET_DIRTY_RINGS calls that reset something")
KRING_MASKS = _counter("kring_masks", "masks", "coalesced 64-page masks re-protected by these calls")
L1_WORDS = _counter("l1_words", "words", "words of the slots' bitmaps (KVMSlot) read")
L1_TOUCHED = _counter("l1_touched", "words", "of these, words that were not zero")
L1_PAGES = _counter("l1_pages", "pages", "pages carried from the slots' bitmaps to the RAMList bitmap")
L1_ZEROED = _counter("l1_zeroed", "words", "words of the slots' bitmaps cleared")
# -- sync: the RAMList bitmap and the migration bitmap ----------------------------------------------------------------
L2_WORDS = _counter("l2_words", "words", "words of the RAMList bitmap read")
L2_TOUCHED = _counter("l2_touched", "words", "of these, words that were not zero")
L2_PAGES = _counter("l2_pages", "pages", "pages carried from the RAMList bitmap to the RAMBlock bitmap")
SYNC_SUMMARY_WORDS = _counter("sync_summary_words", "words", "words of summaries read at syncs")
REFILL_WORDS = _counter("refill_words", "words", "words of the RAMBlock bitmap scanned to refill a queue")
# -- queues of a design -----------------------------------------------------------------------------------------------
RING_PUSHES = _counter("ring_pushes", "entries", "entries put into the design's own queue")
RING_REJECTED = _counter("ring_rejected", "entries", "entries refused because the queue was full")
RING_MERGED = _counter("ring_merged", "entries", "queue entries carried into a bitmap at a sync")
RING_REQUEUED = _counter("ring_requeued", "entries", "entries left over from a round and queued again")
RING_SWAPS = _counter("ring_swaps", "swaps", "times the two queues changed roles")
FALLBACK_ROUNDS = _counter("fallback_rounds", "rounds", "rounds served by the bitmap because the queue had overflowed")
RING_DUPLICATES = _counter("ring_duplicates", "entries", "entries pushed although their page was already marked")
RING_FILTERED = _counter("ring_filtered", "events", "marks that needed no entry: the pass over memory is still to come")
RING_COMPARES = _counter("ring_compares", "entries", "entries looked at again because each RAMBlock rescans the ring")
RING_MISSED = _counter("ring_missed", "entries", "entries lost or late because producers race without a lock")
SIDE_MARKS = _counter("side_marks", "pages", "pages put into a side bitmap: their producer can not wait")
ROUND_FLUSHES = _counter(
    "round_flushes", "flushes", "times a round through the map or the queue ended: multifd's channels are flushed then"
)
FAN_OUT = _counter("fan_out", "updates", "words or pages also marked for the other clients: display, translated code")
DEVICE_WORDS = _counter("device_words", "words", "words of vhost's and VFIO's own dirty logs read at syncs")
# -- the guest --------------------------------------------------------------------------------------------------------
GUEST_WRITES = _counter("guest_writes", "events", "trace events applied")
HOST_WRITES = _counter("host_writes", "events", "of these, made by the hypervisor on a vCPU's thread")
DMA_WRITES = _counter("dma_writes", "events", "of these, made by devices that QEMU emulates")
OUTSIDE_WRITES = _counter("outside_writes", "events", "of these, logged by vhost or VFIO")
LOGGED_WRITES = _counter("logged_writes", "events", "of these, first writes after a re-arm: what the dirty log noticed")
KRING_FULL_EXITS = _counter("kring_full_exits", "exits", "vCPU exits because its KVM ring reached the soft limit")
VCPU_HOLDS = _counter("vcpu_holds", "holds", "times a vCPU had to wait until the sender made room")
REAPER_WAKES = _counter("reaper_wakes", "wakes", "times the reaper thread woke up")

COUNTERS: tuple[Counter, ...] = tuple(_table)
N_COUNTERS = len(COUNTERS)
INDEX: dict[str, int] = {counter.name: index for index, counter in enumerate(COUNTERS)}

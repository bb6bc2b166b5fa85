"""What captures share: when to stop, the trace that grows while they run, KVM, page tracking by system calls."""

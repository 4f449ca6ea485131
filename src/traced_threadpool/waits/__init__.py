"""Where a node's time goes: what each file turns into what is in `docs/waits.md`."""

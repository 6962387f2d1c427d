"""What management decides, as pure functions and small state machines: standard library only, no I/O, no clock."""

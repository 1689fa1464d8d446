"""The order of things: partitions, commits, timers, drain and stop."""

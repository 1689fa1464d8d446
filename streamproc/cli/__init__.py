"""The command line: arguments, progress and tables; no logic."""

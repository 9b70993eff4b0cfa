"""The command line: what is typed, run, launched and shown."""

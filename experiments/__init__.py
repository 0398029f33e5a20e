"""The command line and the studies: one question, one file."""

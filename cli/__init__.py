"""The command line: each file is one command over the library's public functions."""

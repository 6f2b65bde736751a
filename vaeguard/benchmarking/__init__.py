"""Benchmarks: protocols over known data, measured cell by cell, and reports that put the numbers beside others'."""

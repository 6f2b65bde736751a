"""Workflows: a verb and its report in one call."""

"""Prompts in, completions out: stop rule, batch, stream, files."""

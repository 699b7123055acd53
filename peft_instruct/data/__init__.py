"""What to learn from: rows of a file or the hub -> Example -> template -> PromptCompletion -> Tokens."""

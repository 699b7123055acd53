"""Who learns: a base and its tokenizer, where and in which arithmetic, and the adapter on it."""

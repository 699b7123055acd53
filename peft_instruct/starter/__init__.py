"""The embedded default: a small pretrained GPT-2 and its instruction data."""

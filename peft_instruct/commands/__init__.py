"""One file per verb, callable from Python. Nothing here imports torch before the environment is settled."""

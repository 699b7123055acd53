"""How good it is on held-out rows: scores that depend on no batch size, each with the rows it was measured on.

This room renders nothing: a command puts the records into its own text.
"""

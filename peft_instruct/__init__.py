"""Parameter-efficient instruction fine-tuning of GPT-2-class models, with proof that it worked.

Importing the package imports nothing heavy: each room is imported where it is used.
"""

__version__ = "0.1.0"

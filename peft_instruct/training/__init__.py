"""How it learns: TRL's SFTTrainer over ready labels. The only room that imports trl."""

"""A small English world: facts, plain text about them, and instructions that ask for them."""

from peft_instruct.starter.world.corpus import documents
from peft_instruct.starter.world.instructions import InstructionRow, rows
from peft_instruct.starter.world.skills import skills
from peft_instruct.starter.world.station import Fact, Question, Skill, split_of

__all__ = ["Fact", "InstructionRow", "Question", "Skill", "documents", "rows", "skills", "split_of"]

"""`python -m peft_instruct` is `peft-instruct`; also what `accelerate launch -m peft_instruct` runs."""

from peft_instruct.cli import main

if __name__ == "__main__":
    main()

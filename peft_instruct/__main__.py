"""`python -m peft_instruct` is `peft-instruct`."""

from peft_instruct.cli import main

if __name__ == "__main__":
    main()

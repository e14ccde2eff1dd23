"""`python -m motorcade`, the same as the console script."""

from motorcade.cli import main

if __name__ == "__main__":
    main()

"""`python -m kinetograph` is the command `kinetograph`."""

from kinetograph.cli import main

if __name__ == "__main__":
    main()

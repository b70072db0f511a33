"""`python -m bayeslmm`: the command line."""

from bayeslmm.cli.app import main

if __name__ == "__main__":
    main()

"""`python -m thinfilm_gateway` is the command `thinfilm`."""

if __name__ == "__main__":  # the processes that it spawns import this module too, and need no command line
    from thinfilm_gateway.cli import main

    main()

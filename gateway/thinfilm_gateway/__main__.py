"""`python -m thinfilm_gateway` is the command `thinfilm`."""

from thinfilm_gateway.cli import main

if __name__ == "__main__":
    main()

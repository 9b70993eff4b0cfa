"""`python -m nsvd_exp.generate`: a text continued by a compressed model, and by the dense one."""

import sys

from nsvd_exp.cli.generate import main

if __name__ == "__main__":
    sys.exit(main())

"""`python -m nsvd_exp.profile`: size and speed of compressed models, against the dense one."""

import sys

from nsvd_exp.cli.profile import main

if __name__ == "__main__":
    sys.exit(main())

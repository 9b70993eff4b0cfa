"""`python -m nsvd_exp`."""

import sys

from nsvd_exp.cli.main import main

if __name__ == "__main__":
    sys.exit(main())

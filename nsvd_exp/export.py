"""`python -m nsvd_exp.export`: the model of a stored cell as a folder of its own."""

import sys

from nsvd_exp.cli.export import main

if __name__ == "__main__":
    sys.exit(main())

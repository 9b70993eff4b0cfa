"""`python -m nsvd_exp.cache`: what `cache_dir` holds, and clearing it."""

import sys

from nsvd_exp.cli.cache import main

if __name__ == "__main__":
    sys.exit(main())

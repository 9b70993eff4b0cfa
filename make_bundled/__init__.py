"""What makes the bundled model and text of `nsvd_exp/bundled`; see README.md."""

"""The configuration: its types and ranges, the files of `conf/`, and classes named in them."""

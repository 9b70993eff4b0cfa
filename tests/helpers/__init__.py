"""What tests of more than one file use. Each module holds the helpers of one subject."""

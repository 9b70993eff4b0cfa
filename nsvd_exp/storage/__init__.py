"""What is kept on disk: results, what cells share, and the keys it is kept under."""

"""The paper's tables and figure, and what is beyond them, from stored results. Imports no torch."""

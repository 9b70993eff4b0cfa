"""Language models: found, loaded, run block by block, and which of their layers are compressed."""

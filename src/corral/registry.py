"""`ModelRegistry`: the catalog and its operations, from Python."""

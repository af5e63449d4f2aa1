"""Where revisions come from: one file each, ending in `plugin = …`. A leading underscore is not a plugin."""

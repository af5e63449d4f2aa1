"""What can run a revision or reach a vendor: one file each, ending in `plugin = …`.

A leading underscore is not a plugin.
"""

"""Code as models write it: found in their words, and looked at by parsers of its language."""

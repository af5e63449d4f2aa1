"""The screens of the menu, one file each, in the order of their keys."""

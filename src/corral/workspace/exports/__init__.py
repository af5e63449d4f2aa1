"""Artifacts and projects as others take them: components, sites, pages, archives."""

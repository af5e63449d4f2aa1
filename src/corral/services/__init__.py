"""Long-lived servers of models: what runs them (`kinds`), and who keeps them running (`local`, `systemd`)."""

"""What this machine is: one probe a fact; unknown is None."""

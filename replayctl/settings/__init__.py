"""What the user has set: profiles, folders, the namespace, and the context of one call."""

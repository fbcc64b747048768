"""Settings: profiles, folders, the namespace, and the context of one invocation."""

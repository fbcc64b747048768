"""Services and pages of the cluster on this machine."""

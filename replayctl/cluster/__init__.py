"""The Kubernetes API: credentials, questions, and streams into pods."""

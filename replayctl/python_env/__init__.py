"""The Python of steps on YARN: the workloads' environment with its interpreter, as one archive that runs anywhere."""
